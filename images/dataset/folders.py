"""Reads a data set from class folders, which may be inside folders for train, eval and test."""

from base.errors import UserError
from images.dataset.listing import File
from images.dataset.row import Row
from images.dataset.tree import Arrangement


def read_folders(folder: str, files: dict[str, File], arrangement: Arrangement, labelled: bool) -> list[Row]:
    """Takes label and split from the folders in a path.

    Args:
      folder: the data folder, for messages.
      files: the files of the folder, by path.
      arrangement: where the class folders are.
      labelled: whether the data is for training. If not, files outside class folders have no label.

    Returns:
      One row per file. Files outside class folders are set aside. Folders of images without labels, beside split folders with
      labels, are left out.

    Raises:
      UserError: there are no class folders.
    """
    rows = []
    labels: dict[str, tuple[str, ...]] = {"": ()}  # one tuple per class, shared by its rows
    places: dict[str, tuple[str, str]] = {}
    for path, file in files.items():
        if labelled and path.startswith(arrangement.unlabelled):
            continue
        inside = path.rpartition("/")[0]
        if inside not in places:
            places[inside] = arrangement.place(inside)
        name, split = places[inside]
        label = labels.setdefault(name, (name,))
        reason = file.reason or ("" if label or not labelled else "not in a class folder")
        rows.append(Row(path, label, path, split if labelled and not reason else "", reason=reason, size=file.size))
    if labelled and len(labels) == 1 and not any(file.reason for file in files.values()):
        raise UserError(
            f"{folder}: holds files but no class folders; put each image in a folder named as its class, or add a manifest"
        )
    return rows
