"""The versions in a folder, as Pusher writes them and TensorFlow Serving reads them."""

from pathlib import Path


def is_version(folder: Path) -> bool:
    """Whether a folder is a SavedModel."""
    return (folder / "saved_model.pb").is_file()


def numbered_versions(folder: Path) -> dict[int, Path]:
    """The SavedModels in a folder whose names are numbers, newest first."""
    versions = {int(path.parent.name): path.parent for path in folder.glob("*/saved_model.pb") if path.parent.name.isdecimal()}
    return dict(sorted(versions.items(), reverse=True))
