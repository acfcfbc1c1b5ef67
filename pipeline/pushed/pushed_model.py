"""What is needed to use a pushed model: its newest version, and image files, read as ingestion reads them."""

from pathlib import Path
from typing import Final

from base.errors import UserError
from base.inputs import read_json
from components.pusher.versions import version_folders
from images.file_settings import FileSettings, Pages
from images.files.decoding import RejectedImage, normalise

_IMAGE_SETTINGS: Final = "assets.extra/image.json"  # written by models.export; importing that would load TensorFlow
_MAX_PIXELS: Final = 100_000_000


def find_version(model: Path) -> Path:
    """The SavedModel's folder: `model` itself, or the newest of the numbered versions in it.

    Raises:
      UserError: there is no SavedModel.
    """
    folder = Path([str(model), *version_folders(str(model)).values()][-1])
    if not (folder / "saved_model.pb").is_file():
        raise UserError(f"{model}: no SavedModel here; give the folder that a run has pushed to, such as output/digits/pushed")
    return folder


def read_image(image: Path, folder: Path) -> bytes:
    """Reads an image file in any format that ingestion takes, and returns a file that the SavedModel in `folder` decodes.

    Raises:
      UserError: the file can't be read, or is not an image.
    """
    try:
        return normalise(image.read_bytes(), image.name, file_settings(folder, _MAX_PIXELS, "first"))[0].encoded
    except OSError as error:
        raise UserError(f"{image}: {error.strerror}; give an image file") from error
    except RejectedImage as reason:
        raise UserError(f"{image}: {reason}; give an image file, such as PNG or JPEG") from reason


def file_settings(folder: Path, max_pixels: int, pages: Pages) -> FileSettings:
    """How files are read for a SavedModel: with the intensities that it was trained with; by type if it does not say.

    Args:
      folder: folder of the SavedModel.
      max_pixels: as in `FileSettings`.
      pages: as in `FileSettings`.
    """
    file = folder / _IMAGE_SETTINGS
    if not file.exists():
        return FileSettings(max_pixels=max_pixels, pages=pages, intensity="type", window=None)
    image = read_json(file, "push the model again")
    window = tuple(image["window"]) if image["window"] else None
    return FileSettings(max_pixels=max_pixels, pages=pages, intensity=image["intensity"], window=window)
