"""What asking a pushed model takes: its newest version, and image files as ingestion reads them."""

import json
from pathlib import Path
from typing import Final

from base.errors import UserError
from components.pusher.versions import version_folders
from images.files.decoding import RejectedImage, normalise
from images.settings import FileSettings
from models.packing import unpack
from pipeline.config.data import DataConfig

_IMAGE_SETTINGS: Final = "assets.extra/image.json"  # as models.export writes it; nothing of the models package is loaded
_READING: Final = DataConfig(path="")  # as the configuration has it where nothing is said


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
        return normalise(image.read_bytes(), image.name, file_settings(folder, _READING))[0].encoded
    except OSError as error:
        raise UserError(f"{image}: {error.strerror}; give an image file") from error
    except RejectedImage as reason:
        raise UserError(f"{image}: {reason}; give an image file, such as PNG or JPEG") from reason


def file_settings(folder: Path, config: DataConfig) -> FileSettings:
    """How files are read for a SavedModel: with the intensities that it was trained with, by type if it does not say.

    Args:
      folder: of the SavedModel.
      config: whose `max_pixels` and `pages` count.
    """
    file = folder / _IMAGE_SETTINGS
    image = json.loads(file.read_text()) if file.exists() else {"intensity": "type", "window": None}
    return unpack(FileSettings, {**config.model_dump(), **image})
