"""A class that has the name of no answer is refused before the run, where a model may abstain."""

from pathlib import Path

import pytest
from data_folders import touch

from base.errors import UserError
from pipeline.config.whole import Config
from pipeline.local.checks import read_data


@pytest.mark.parametrize("calibrate", [{"abstain": {"risk": 0.1}}, {"unusual": {"cutoff": 99}}])
def test_it_is_told_before_an_image_is_opened(tmp_path: Path, calibrate: dict[str, object]) -> None:
    touch(tmp_path, *(f"{name}/{number}.png" for name in ("cat", "unknown") for number in range(30)))
    values = {"name": "x", "data": {"path": str(tmp_path), "splits": {"stratify": True}}}
    read_data(Config.model_validate(values))
    with pytest.raises(UserError, match=f"calibrate.{next(iter(calibrate))}.*: the data has a class named unknown"):
        read_data(Config.model_validate({**values, "calibrate": calibrate}))
