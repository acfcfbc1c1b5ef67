"""`fpn init`, and what it wrote: `fpn data` on every layout, whole runs on three of them."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from layouts import COUNTS, LAYOUTS, PER_CLASS

from tests.sweeps.runs import Ended, Starter

RUNS = ("A compressed tar archive", "COCO", "WebDataset's tar files")
SMALL = ("model.num_filters=8", "model.max_level=3", "train.steps=10", "evaluate.confidence_intervals=none")
THRESHOLDS = "evaluate.thresholds=[{metric: accuracy, lower: 0.1}]"

pytestmark = pytest.mark.extra


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_run_with_what_fpn_init_wrote_takes_in_all_images(name: str, starter: Starter, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    data, config, output = tmp_path / layout.data, tmp_path / "pets.yaml", tmp_path / "output"
    layout.write(data)
    options = [option for override in layout.overrides for option in ("--set", override)]
    _ended(starter.run(["init", str(data), "--output", str(config), *options]))

    if name in RUNS:
        options = [option for override in (*SMALL, THRESHOLDS) for option in ("--set", override)]
        summary = _ended(starter.run(["run", "--config", str(config), "--output", str(output), "--json", *options])).summary
        per_split = {split: 2 * count for split, count in COUNTS.items()}
        assert summary["examples"] == {
            "train": per_split["train"],
            "eval": per_split["val"],
            "test": per_split["test"],
            "rejected": 0,
        }
        assert Path(summary["pushed_model"]).is_dir()
    else:
        _ended(starter.run(["data", "--config", str(config), "--output", str(output)]))
        assert (output / "data.html").is_file()
    (table,) = output.glob("artifacts/ImageExampleGen/examples/*/images.parquet")
    images = pd.read_parquet(table)
    assert not images.reason.astype(bool).any()
    taken = Counter(zip(images.split, images.label, strict=True))
    assert {split for split, _ in taken} == {"train", "eval", "test"}
    assert all(sum(count for (_, its), count in taken.items() if its == label) == PER_CLASS for _, label in taken)
    from_train = {split for split in ("train", "eval", "test") if (split, next(iter(layout.found))[1]) not in layout.found}
    for (split, label), count in layout.found.items():
        if split and not (split == "train" and from_train):
            assert taken[split, label] == count


def _ended(ended: Ended) -> Ended:
    assert ended.status == 0, ended.stderr + ended.stdout
    return ended
