"""The configurations that the project ships, at full size."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.extra  # test_pipeline.py has the same with fewer images
def test_the_embedded_default_reaches_its_accuracy_and_is_cached_then(fresh_fpn, tmp_path):
    arguments = ["run", "--config", "configs/digits.yaml", "--output", tmp_path / "out", "--json"]
    arguments += ["--set", f"data.path={tmp_path / 'digits'}"]
    first = fresh_fpn(*arguments)
    assert first.status == 0, first.stderr
    assert first.json["blessed"] is True
    assert (Path(first.json["pushed_model"]) / "saved_model.pb").exists()
    assert first.json["metrics"]["accuracy"]["value"] >= 0.96
    assert sum(first.json["examples"].values()) == 5391
    again = fresh_fpn(*arguments)
    uncached = [name for name, component in again.json["components"].items() if component["state"] != "cached"]
    assert uncached == ["Pusher"]  # it looks each time


@pytest.mark.extra
@pytest.mark.skipif(not SHARED.exists(), reason="the photographs of hand signs are not on this machine")
def test_fine_tuning_reads_hand_signs(fresh_fpn, tmp_path):
    ended = fresh_fpn(
        "run", "--config", "configs/sign_digits.yaml", "--data", SHARED / "sign_digits", "--output", tmp_path, "--json"
    )
    assert ended.status == 0, ended.stderr
    assert ended.json["metrics"]["accuracy"]["value"] >= 0.98
    examples = ended.json["examples"]
    assert sum(examples.values()) == 2062
    assert examples["rejected"] == 0
