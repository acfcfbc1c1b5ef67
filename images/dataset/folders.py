"""Reads a data set from class folders, which may be inside folders for train, eval and test."""

from base.errors import UserError
from images.dataset.listing import File
from images.dataset.row import SPLIT_NAMES, Row


def read_folders(folder: str, files: dict[str, File]) -> list[Row]:
    """Takes the label from the first folder in a path, or from the second if the first is a split folder.

    Args:
      folder: the data folder, for messages.
      files: the files of the folder, by path.

    Returns:
      One row per file; files outside class folders are set aside.

    Raises:
      UserError: there are no class folders, or there are other folders beside the split folders.
    """
    top_folders, split_folders = _top_folders(files)
    split_first = has_splits(files)
    if split_first and (others := sorted(top_folders - split_folders)):
        raise UserError(f"{folder}: has folders for splits, and others beside them ({', '.join(others)}); move those away")
    depth = 2 if split_first else 1
    rows = []
    labels: dict[str, tuple[str, ...]] = {}  # one tuple per class, shared by its rows
    for path, file in files.items():
        parts = path.split("/", depth)
        if len(parts) <= depth:
            rows.append(Row(path, (), path, "", reason=file.reason or "not in a class folder", size=file.size))
            continue
        label = labels.setdefault(parts[depth - 1], (parts[depth - 1],))
        split = SPLIT_NAMES[parts[0].lower()] if split_first else ""
        rows.append(Row(path, label, path, "" if file.reason else split, reason=file.reason, size=file.size))
    if not labels and not any(file.reason for file in files.values()):
        raise UserError(
            f"{folder}: holds files but no class folders; put each image in a folder named as its class, or add a manifest"
        )
    return rows


def read_any(files: dict[str, File]) -> list[Row]:
    """Takes every file; the label as in `read_folders`, none if the file is not in a class folder.

    Args:
      files: the files of the folder, by path.

    Returns:
      One row per file, without a split.
    """
    depth = 2 if has_splits(files) else 1
    rows = []
    labels: dict[str, tuple[str, ...]] = {}
    for path, file in files.items():
        parts = path.split("/", depth)
        label = labels.setdefault(parts[depth - 1], (parts[depth - 1],)) if len(parts) > depth else ()
        rows.append(Row(path, label, path, "", reason=file.reason, size=file.size))
    return rows


def has_splits(files: dict[str, File]) -> bool:
    """Whether the top folders are folders for splits, by their names; a single one is a class."""
    return len(_top_folders(files)[1]) > 1


def _top_folders(files: dict[str, File]) -> tuple[set[str], set[str]]:
    """The top folders of all paths, and those of them that have the name of a split."""
    top_folders = {path.split("/", 1)[0] for path in files if "/" in path}
    return top_folders, {name for name in top_folders if name.lower() in SPLIT_NAMES}
