"""How the data is read is decided when a run begins, and then holds, or the run stops."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from data_folders import image_paths, make_manifest, settings, touch
from executors import ingest

from base.errors import UserError
from components.image_example_gen.component import ImageExampleGen
from images.dataset import source
from images.settings import IngestionSettings, Reading


def with_manifest(folder: Path, columns: str = "path,label,group") -> None:
    lines = [f"{path},{path[:3]},{number // 4}" for number, path in enumerate(image_paths())]
    count = len(columns.split(","))
    make_manifest(folder, columns, [",".join(line.split(",")[:count]) for line in lines])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    touch(tmp_path / "data", *image_paths(), "owl/0.png", "owl/1.png")
    return tmp_path / "data"


def decided(folder: Path | str) -> IngestionSettings:
    return replace(settings(), reading=source.find_rows(str(folder), settings()).reading)


def test_the_reading_says_what_was_found(data: Path) -> None:
    assert decided(data).reading == Reading(
        sources={"": "class folders"}, classes=("cat", "dog", "owl"), groups=False, splits=False
    )
    with_manifest(data)
    assert decided(data).reading == Reading(
        sources={"": "the manifest manifest.csv"}, classes=("cat", "dog"), groups=True, splits=False
    )


def test_the_same_data_gives_the_same_settings(data: Path) -> None:
    with_manifest(data)
    first = ImageExampleGen(str(data), decided(data)).exec_properties
    assert ImageExampleGen(str(data), decided(data)).exec_properties == first
    touch(data, "cat/99.png")  # not in the manifest
    assert ImageExampleGen(str(data), decided(data)).exec_properties == first


def lose_manifest(data: Path) -> None:
    (data / "manifest.csv").unlink()


def lose_groups(data: Path) -> None:
    with_manifest(data, "path,label")


def lose_class(data: Path) -> None:
    text = (data / "manifest.csv").read_text()
    (data / "manifest.csv").write_text(text.replace(",dog,", ",cat,"))


def add_class(data: Path) -> None:
    with (data / "manifest.csv").open("a") as file:
        file.write("owl/0.png,owl,7\n")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lose_manifest,
            "was read from the manifest manifest.csv when the run began, and would be read from class folders now",
        ),
        (lose_groups, "groups have gone since the run began"),
        (lose_class, "the images of the class dog are gone since the run began"),
        (add_class, "images of the class owl were added since the run began"),
    ],
)
def test_other_data_than_was_looked_at_stops_the_ingestion(change: Callable[[Path], None], told: str, data: Path) -> None:
    with_manifest(data)
    reading = decided(data).reading
    change(data)
    with pytest.raises(UserError) as caught:
        ingest(data, data.parent / "out", reading=reading)
    assert str(caught.value) == f"{data}: {told}; put the data back as it was, or start the run again"


def test_a_manifest_that_appears_is_told(data: Path) -> None:
    before = decided(data)
    with_manifest(data)
    with pytest.raises(UserError, match=r"was read from class folders .* would be read from the manifest manifest\.csv now"):
        source.find_rows(str(data), before)


def test_a_class_folder_that_is_deleted_is_named(data: Path) -> None:
    before = decided(data)
    for file in (data / "owl").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="the images of the class owl are gone"):
        source.find_rows(str(data), before)


def test_added_images_of_known_classes_are_taken(data: Path) -> None:
    before = decided(data)
    touch(data, "cat/99.png")
    assert len(source.find_rows(str(data), before).rows) == 83


def test_folders_of_splits_that_appear_are_told(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(prefix="train/"), *image_paths(prefix="test/"))
    before = decided(tmp_path)
    assert before.reading
    assert before.reading.sources == {"": "class folders in folders of splits: test (test), train (train)"}
    for file in (tmp_path / "test").rglob("*.png"):
        file.unlink()
    with pytest.raises(UserError, match="would be read from class folders in train now"):
        source.find_rows(str(tmp_path), before)


def test_each_span_has_its_own_reading(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(prefix="day-1/"), *image_paths(prefix="day-2/"))
    with_manifest(tmp_path / "day-2")
    pattern = str(tmp_path / "day-{SPAN}")
    before = decided(pattern)
    assert before.reading
    assert before.reading.sources == {"day-1/": "class folders", "day-2/": "the manifest manifest.csv"}
    (tmp_path / "day-2/manifest.csv").unlink()
    with pytest.raises(UserError, match="day-2/: was read from the manifest"):
        source.find_rows(pattern, before)
    with_manifest(tmp_path / "day-2")
    (tmp_path / "day-1").rename(tmp_path / "gone")
    with pytest.raises(UserError, match="the folder day-1/ is gone since the run began"):
        source.find_rows(pattern, before)


def test_a_run_hands_its_first_look_to_the_component(data: Path) -> None:
    """As `fpn run` makes the pipeline; as for Kubeflow, the component decides by itself."""
    from components.image_example_gen.executor import unpack_settings
    from pipeline.config.data import DataConfig, SplitsConfig
    from pipeline.config.delivery import ScoreConfig
    from pipeline.config.whole import Config
    from pipeline.dag.pipeline import create_data_pipeline, create_pipeline
    from pipeline.local.checks import read_data

    with_manifest(data)
    config = Config(
        name="look", data=DataConfig(path=str(data), splits=SplitsConfig(stratify=True)), score=ScoreConfig(path=str(data))
    )
    _, readings = read_data(config)
    whole = create_pipeline(config, pipeline_root="root", push_folder="pushed", readings=readings)
    look = create_data_pipeline(config, pipeline_root="root", readings=readings)
    found = {
        node.id: unpack_settings(node.exec_properties).reading for node in whole.components if isinstance(node, ImageExampleGen)
    }
    assert found["ImageExampleGen"] == unpack_settings(look.components[0].exec_properties).reading == readings.data
    assert found["ScoreExampleGen"] == readings.score
    assert readings.score
    assert readings.score.classes == ()
    alone = create_data_pipeline(config, pipeline_root="root").components[0]
    assert unpack_settings(alone.exec_properties).reading is None
