"""What is looked at before a run."""

import pytest
from hub_folders import write_dinov2

from base.errors import UserError
from pipeline.config.whole import Config
from pipeline.local.checks import check_weights

pytest.importorskip("keras_hub", reason="keras-hub is not installed")


def config(folder, **image) -> Config:
    model = {"backbone": f"hub:{folder}", "weights": "preset"}
    return Config.model_validate({"name": "x", "data": {"path": "."}, "image": {"channels": 3, **image}, "model": model})


def test_the_network_is_tried_on_a_tile_and_not_on_the_whole_image(tmp_path):
    folder = write_dinov2(tmp_path / "folder")
    check_weights(config(folder, height=64, width=160, tiles={"size": 64}))
    with pytest.raises(UserError, match="DINOV2Backbone takes square images"):
        check_weights(config(folder, height=64, width=160))


def test_backbones_that_only_the_search_would_try_are_tried_before_the_run(tmp_path):
    good, missing = write_dinov2(tmp_path / "folder"), tmp_path / "missing"
    content = config(good, height=64, width=64).content()
    content["tune"] = {"enabled": True, "space": {"model.backbone": [f"hub:{good}", f"hub:{missing}"]}}
    with pytest.raises(UserError, match="missing can't be read"):
        check_weights(Config.model_validate(content))
