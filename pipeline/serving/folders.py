"""The versions in a folder, as the Pusher writes them and TensorFlow Serving reads them."""

from pathlib import Path

from components.pusher.versions import version_folders


def is_version(folder: Path) -> bool:
    """Whether a folder is a SavedModel."""
    return (folder / "saved_model.pb").is_file()


def numbered_versions(folder: Path) -> dict[int, Path]:
    """The SavedModels in a folder whose names are numbers, by number, the newest first."""
    return {number: Path(path) for number, path in reversed(version_folders(str(folder)).items())}
