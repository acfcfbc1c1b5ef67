"""A run goes on from the model of the run before, when a span and a class were added."""

from pathlib import Path

import ml_metadata as mlmd
import numpy as np
import pytest
from few_digits import write_config
from ml_metadata.proto import metadata_store_pb2
from PIL import Image

pytestmark = pytest.mark.extra

RANDOM = np.random.default_rng(5)
CLASSES = ["bright", "dark", "grey"]


def write_span(folder: Path, classes: list[str], per_class: int = 60) -> None:
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = {"bright": 200, "dark": 30, "grey": 110}[name] + RANDOM.integers(-20, 20, (16, 16))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")


@pytest.fixture(scope="module")
def runs(fpn, tmp_path_factory):
    """Two runs, before and after a span with a new class was added."""
    place = tmp_path_factory.mktemp("continual")
    splits = {"train": 6, "eval": 2, "test": 2}
    write_config(
        place,
        data={"path": f"{place}/day-{{SPAN}}", "splits": splits, "spans": {"newest": 1, "replay": 0.5}},
        train={"epochs": 2, "warm_start": "blessed"},
        push={"replace": True},
    )
    ended = []
    for number, classes in ((1, CLASSES[:2]), (2, CLASSES)):
        write_span(place / f"day-{number}", classes)
        ended.append(fpn("run", "--config", place / "config.yaml", "--output", place / "out", "--json"))
        assert ended[-1].status == 0, ended[-1].stderr
    return [run.json for run in ended]


def test_the_first_run_begins_anew_and_the_next_one_from_its_model(runs):
    first, second = runs
    assert first["training"]["warm_start"] is None
    assert "No pushed model to start from (train.warm_start): training began anew" in first["notes"]
    assert second["training"]["warm_start"] == {
        "model": first["pushed_model"],
        "kept": 2,
        "added": ["grey"],
        "removed": [],
    }
    assert not any("began anew" in note for note in second["notes"])
    assert f"started from {first['pushed_model']}, 2 classes kept, added grey" in Path(second["report"]).read_text()


def test_a_run_trains_on_the_newest_span_and_some_of_the_older_and_tests_on_all(runs):
    first, second = (run["examples"] for run in runs)
    assert second["train"] < first["train"] + 180
    assert second["test"] > first["test"]
    assert any("images of older spans are left out" in note for note in runs[1]["notes"])


def test_the_store_knows_the_model_as_an_input_of_the_trainer(runs):
    pushed = runs[0]["pushed_model"]
    connection = metadata_store_pb2.ConnectionConfig()
    connection.sqlite.filename_uri = str(Path(pushed).parents[1] / "metadata.sqlite")
    store = mlmd.MetadataStore(connection)
    (artifact,) = store.get_artifacts_by_uri(pushed)
    keys = [event.path.steps[0].key for event in store.get_events_by_artifact_ids([artifact.id])]
    assert "base_model" in keys
