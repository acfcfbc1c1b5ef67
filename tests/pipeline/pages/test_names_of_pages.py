"""A file whose own name ends as that of a page, "scan#2", is not taken for a page of another file."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from images.file_settings import FileSettings
from pipeline.pages.thumbnails import read_originals


def grey(level: int) -> Image.Image:
    return Image.new("L", (8, 8), level)


@pytest.mark.parametrize("beside", [True, False], ids=["beside a file of two pages", "alone"])
def test_a_file_is_read_by_its_name_before_a_page_is(tmp_path: Path, beside: bool) -> None:
    grey(200).save(tmp_path / "scan#1", "PNG")
    names = {"scan#1": 200}
    if beside:
        grey(10).save(tmp_path / "scan", "TIFF", save_all=True, append_images=[grey(20), grey(30)])
        names |= {"scan": 10, "scan#2": 30}
    settings = FileSettings(max_pixels=10**6, pages="all", intensity="type", window=None)
    read = {
        name: int(np.asarray(Image.open(io.BytesIO(image))).max())
        for name, image in read_originals(str(tmp_path), names, settings)
    }
    assert read == names
