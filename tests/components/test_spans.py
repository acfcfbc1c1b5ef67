"""Data in numbered parts: what is found, what a later run reads again, and what its analysis takes from the cache."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_transform as tft
from executors import IMAGE, ingest, make_artifact, read_records, read_summary, read_values, transform_examples
from PIL import Image
from pyarrow import parquet
from tensorflow_transform.beam import analysis_graph_builder
from tfx.types import standard_artifacts

from base.errors import UserError
from components.transform import analysis
from images.dataset.spans import Span, find_spans, root_of
from models import features
from models.training import read_images, read_statistics

PER_SPAN = 21
BROKEN = "day-1/broken.png"


# What is found


def test_spans_are_found_by_number_whatever_the_number_of_digits(tmp_path: Path) -> None:
    for name in ("day-10", "day-9", "day-x", "day-", "night-3", "day-4-old"):
        (tmp_path / name).mkdir()
    (tmp_path / "day-5").touch()
    assert find_spans(f"{tmp_path}/day-{{SPAN}}") == [Span(9, "day-9/"), Span(10, "day-10/")]


def test_a_width_takes_names_of_as_many_digits_and_folders_may_follow(tmp_path: Path) -> None:
    for name in ("07", "8", "112", "12"):
        (tmp_path / name / "images").mkdir(parents=True)
    assert find_spans(f"{tmp_path}/{{SPAN:2}}/images") == [Span(7, "07/images/"), Span(12, "12/images/")]
    assert root_of(f"{tmp_path}/{{SPAN:2}}/images") == str(tmp_path)


def test_a_folder_without_the_mark_is_one_span() -> None:
    assert find_spans("some/folder") == [Span(0, "")]
    assert root_of("some/folder") == "some/folder"
    assert root_of("day-{SPAN}") == "."


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("day-{SPAN}", "day-07/ and day-7/ are both span 7; rename one of them"),
        ("night-{SPAN}", "no such folders; {SPAN} stands for a number"),
        ("{SPAN}/{SPAN}", "names {SPAN} twice"),
    ],
)
def test_spans_that_cannot_be_told_apart_or_found_are_a_mistake(tmp_path: Path, pattern: str, words: str) -> None:
    for name in ("day-7", "day-07"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError) as caught:
        find_spans(f"{tmp_path}/{pattern}")
    assert words in str(caught.value)


# What a later run reads again


def write_span(root: Path, number: int) -> None:
    """Images of two classes whose groups go across the spans."""
    folder = root / f"day-{number}"
    folder.mkdir(parents=True)
    lines = []
    for image in range(PER_SPAN):
        pixels = np.random.default_rng([number, image]).integers(0, 256, (9, 10, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{image}.png")
        lines.append(f"{image}.png,{'dog' if image % 3 else 'cat'},{image}")
    if number == 1:
        (root / BROKEN).write_bytes(b"no image")
        lines.append("broken.png,cat,broken")
    (folder / "manifest.csv").write_text("\n".join(["path,label,group", *lines]) + "\n")
    with (root / "manifest.csv").open("a") as manifest:  # of all spans as one folder
        manifest.write("" if manifest.tell() else "path,label,group\n")
        manifest.writelines(f"day-{number}/{line}\n" for line in lines)


@dataclass(frozen=True)
class Runs:
    """Two spans; a third added; another image size; a changed file in the first span; all spans as one folder."""

    two: standard_artifacts.Examples
    three: standard_artifacts.Examples
    resized: standard_artifacts.Examples
    changed: standard_artifacts.Examples
    at_once: standard_artifacts.Examples


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spans")


@pytest.fixture(scope="module")
def runs(output: Path) -> Runs:
    root, pattern = output / "data", f"{output}/data/day-{{SPAN}}"
    for number in (1, 2):
        write_span(root, number)
    two = ingest(pattern, output, 1)
    write_span(root, 10)
    three = ingest(pattern, output, 2)
    at_once = ingest(root, output / "at-once")
    resized = ingest(pattern, output, 3, image=replace(IMAGE, width=7))
    os.utime(root / "day-1/3.png", (1, 1))
    return Runs(two, three, resized, ingest(pattern, output, 4), at_once)


def read(examples: standard_artifacts.Examples) -> dict[str, tuple[str, bytes]]:
    """Name -> split and record of every example, each of which must be there once."""
    found = [
        (read_values(record)[features.FILENAME][0].decode(), (split, record))
        for split in features.SPLITS
        for record in read_records(Path(examples.uri) / f"Split-{split}")
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def paths_of(*numbers: int) -> set[str]:
    return {f"day-{number}/{image}.png" for number in numbers for image in range(PER_SPAN)}


def test_all_images_of_all_spans_are_there_once(runs: Runs) -> None:
    assert set(read(runs.two)) == paths_of(1, 2)
    assert set(read(runs.three)) == paths_of(1, 2, 10)


def test_a_new_span_leaves_the_others_examples_as_they_are_and_reads_them_no_more(runs: Runs) -> None:
    assert read_summary(runs.two)["reused"] == 0
    assert read_summary(runs.three)["reused"] == 2 * PER_SPAN + 1  # with the file that is none
    before, after = read(runs.two), read(runs.three)
    assert {path: after[path] for path in before} == before


def test_index_and_summary_are_those_of_all_spans(runs: Runs) -> None:
    index = parquet.read_table(Path(runs.three.uri) / "images.parquet").to_pylist()
    assert {row["path"]: row["split"] for row in index if row["split"]} == {
        path: split for path, (split, _) in read(runs.three).items()
    }
    assert [row["path"] for row in index if row["reason"]] == [BROKEN]
    assert len(index) == 3 * PER_SPAN + 1
    for name in ("found", "images", "splits", "rejected"):
        assert read_summary(runs.three)[name] == read_summary(runs.at_once)[name]


def test_groups_across_spans_stay_in_one_split(runs: Runs) -> None:
    splits: dict[str, set[str]] = {}
    for path, (split, _) in read(runs.three).items():
        splits.setdefault(path.split("/")[1], set()).add(split)
    assert all(len(found) == 1 for found in splits.values())


def test_another_image_size_makes_all_examples_anew(runs: Runs) -> None:
    assert read_summary(runs.resized)["reused"] == 0
    decoded = [record for folder in (Path(runs.resized.uri) / "decoded").iterdir() for record in read_records(folder)]
    assert len(decoded) == sum(split != "test" for split, _ in read(runs.resized).values()) > PER_SPAN
    assert {len(read_values(record)[features.PIXELS][0]) for record in decoded} == {8 * 7 * 3}


def test_a_changed_file_has_its_span_read_again_and_no_other(runs: Runs) -> None:
    assert read_summary(runs.changed)["reused"] == 2 * PER_SPAN
    assert read(runs.changed) == read(runs.three)


# What the analysis takes from the cache


@dataclass(frozen=True)
class Analysed:
    """Outputs of Transform, at once of TFX's own, and how many of the examples' parts its analysis has read."""

    outputs: dict[str, Path]
    read: int

    def caches(self) -> dict[str, dict[str, bytes]]:
        """Content of the cache: part -> file -> bytes."""
        root = self.outputs["updated_analyzer_cache"]
        return {
            folder.name: {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
            for folder in root.iterdir()
            if folder.is_dir()
        }


@pytest.fixture(scope="module")
def analysed(runs: Runs, output: Path) -> dict[str, Analysed]:
    found = {}
    needed = analysis_graph_builder.get_analysis_dataset_keys
    with pytest.MonkeyPatch.context() as patch:
        counts: list[int] = []

        def count(*arguments: Any) -> Any:
            keys = needed(*arguments)
            counts.append(len(keys))
            return keys

        patch.setattr(analysis_graph_builder, "get_analysis_dataset_keys", count)
        for number, (name, examples, place) in enumerate(
            [("two", runs.two, output), ("three", runs.three, output), ("at once", runs.at_once, output / "at-once")], 1
        ):
            outputs = transform_examples(examples, place, number, stock=name == "at once")
            found[name] = Analysed(outputs, counts[-1])
    return found


def test_only_the_new_span_is_analysed(analysed: dict[str, Analysed]) -> None:
    assert analysed["two"].read == 2
    assert analysed["three"].read == 1


def test_what_is_known_of_old_spans_is_kept_as_it_is(analysed: dict[str, Analysed]) -> None:
    before, after = analysed["two"].caches(), analysed["three"].caches()
    assert len(before) == 2
    assert len(after) == 3
    assert all(before.values())
    for name, content in before.items():
        assert after[name] == content


def test_spans_have_the_statistics_of_one_folder_with_all_images(analysed: dict[str, Analysed]) -> None:
    three, at_once = (tft.TFTransformOutput(str(analysed[name].outputs["transform_graph"])) for name in ("three", "at once"))
    for name in (features.LABEL_VOCABULARY, features.LABEL_COUNTS):
        assert three.vocabulary_by_name(name) == at_once.vocabulary_by_name(name)


@pytest.mark.parametrize("split", ["train", "eval"])
def test_pixels_and_labels_are_those_that_tfx_makes_of_one_folder(analysed: dict[str, Analysed], split: str) -> None:
    three, at_once = (analysed[name].outputs["transformed_examples"] / f"Split-{split}" for name in ("three", "at once"))
    classes = tft.TFTransformOutput(str(analysed["three"].outputs["transform_graph"])).vocabulary_by_name(
        features.LABEL_VOCABULARY
    )
    ours = [
        (image.tobytes(), [labels.argmax()])
        for image, labels in read_images([f"{three}/*"], IMAGE.shape, classes).as_numpy_iterator()
    ]
    theirs = [(values[features.IMAGE][0], values[features.LABEL_INDEX]) for values in map(read_values, read_records(at_once))]
    assert len(ours) > 3
    assert sorted(ours) == sorted(theirs)


def test_the_statistics_are_those_that_tfx_finds_in_one_folder(analysed: dict[str, Analysed]) -> None:
    graphs = (tft.TFTransformOutput(str(analysed[name].outputs["transform_graph"])) for name in ("three", "at once"))
    three, at_once = map(read_statistics, graphs)
    assert three[features.TRAIN_EXAMPLES] == at_once[features.TRAIN_EXAMPLES] > 3
    for name in (features.CHANNEL_MEAN, features.CHANNEL_VARIANCE):  # the order of sums is another
        np.testing.assert_allclose(three[name], at_once[name], rtol=1e-5)


def test_another_split_of_known_spans_is_analysed_by_itself(runs: Runs, analysed: dict[str, Analysed], output: Path) -> None:
    """As a cross-validation does it, in which each fold is trained on others."""
    after, alone = (
        read_statistics(tft.TFTransformOutput(str(transform_examples(runs.three, *place, analyze="eval")["transform_graph"])))
        for place in ((output, 4), (output / "alone", 1))
    )
    for name, value in after.items():
        np.testing.assert_array_equal(value, alone[name])
    three = read_statistics(tft.TFTransformOutput(str(analysed["three"].outputs["transform_graph"])))
    assert after[features.TRAIN_EXAMPLES] != three[features.TRAIN_EXAMPLES]


def test_many_spans_are_analysed_as_one(
    runs: Runs, analysed: dict[str, Analysed], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis, "_MOST_PARTS", 2)
    outputs = transform_examples(runs.three, output / "many")
    assert not list(outputs["updated_analyzer_cache"].iterdir())
    many, three = (
        read_statistics(tft.TFTransformOutput(str(found["transform_graph"]))) for found in (outputs, analysed["three"].outputs)
    )
    for name, value in many.items():
        np.testing.assert_allclose(value, three[name], rtol=1e-5)


def test_no_file_to_analyse_is_told(tmp_path: Path) -> None:
    examples = make_artifact(standard_artifacts.Examples, tmp_path, "ExampleGen", "examples", 1)
    examples.split_names = '["train", "eval"]'
    for split in ("train", "eval"):
        (Path(examples.uri) / f"Split-{split}").mkdir()
    with pytest.raises(UserError, match="no example to analyse in train; let the ExampleGen write some"):
        transform_examples(examples, tmp_path)


def test_only_the_splits_that_are_asked_for_are_transformed(analysed: dict[str, Analysed]) -> None:
    for name in ("three", "at once"):
        folders = analysed[name].outputs["transformed_examples"].iterdir()
        assert sorted(folder.name for folder in folders) == ["Split-eval", "Split-train"]


def test_nothing_temporary_is_left_in_the_transform_graph(analysed: dict[str, Analysed]) -> None:
    names = {path.name for path in analysed["three"].outputs["transform_graph"].iterdir()}
    assert names == {"metadata", "transform_fn", "transformed_metadata"}


def test_what_a_server_has_to_give_is_what_tfx_asks_for(analysed: dict[str, Analysed]) -> None:
    three, at_once = (tft.TFTransformOutput(str(analysed[name].outputs["transform_graph"])) for name in ("three", "at once"))
    assert three.raw_feature_spec() == at_once.raw_feature_spec()
    assert three.transformed_feature_spec() == at_once.transformed_feature_spec()
