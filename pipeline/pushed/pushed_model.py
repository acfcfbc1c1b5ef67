"""What asking a pushed model takes: its newest version, and image files as ingestion reads them."""

import json
from pathlib import Path
from typing import Final

from base.errors import UserError
from components.pusher.versions import version_folders
from images.file_settings import FileSettings, Pages
from images.files.decoding import RejectedImage, normalise

_IMAGE_SETTINGS: Final = "assets.extra/image.json"  # as models.export writes it; nothing of the models package is loaded
_MAX_PIXELS: Final = 100_000_000


def find_version(model: Path) -> Path:
    """The SavedModel's folder: the one given, or the newest of the numbered versions in it.

    Raises:
      UserError: there is none.
    """
    folder = Path([str(model), *version_folders(str(model)).values()][-1])
    if not (folder / "saved_model.pb").exists():
        raise UserError(f"{model}: no SavedModel here; give the folder that a run has pushed to, such as output/digits/pushed")
    return folder


def read_image(image: Path, folder: Path) -> bytes:
    """An image file, in any format that ingestion takes, as one that the SavedModel in `folder` decodes.

    Raises:
      UserError: the file can't be read, or is no image.
    """
    try:
        return normalise(image.read_bytes(), image.name, file_settings(folder, _MAX_PIXELS, "first"))[0].encoded
    except OSError as error:
        raise UserError(f"{image}: {error.strerror}; give an image file") from error
    except RejectedImage as reason:
        raise UserError(f"{image}: {reason}; give an image file, such as PNG or JPEG") from reason


def file_settings(folder: Path, max_pixels: int, pages: Pages) -> FileSettings:
    """How files are read for a SavedModel: with the intensities that it was trained with, by type if it does not say.

    Args:
      folder: of the SavedModel.
      max_pixels: as of `FileSettings`.
      pages: likewise.
    """
    file = folder / _IMAGE_SETTINGS
    if not file.exists():
        return FileSettings(max_pixels=max_pixels, pages=pages, intensity="type", window=None)
    image = json.loads(file.read_text())
    window = tuple(image["window"]) if image["window"] else None
    return FileSettings(max_pixels=max_pixels, pages=pages, intensity=image["intensity"], window=window)
