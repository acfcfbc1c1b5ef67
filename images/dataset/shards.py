"""Splits of files that hold many images each, by their names and folders: train-00000.tar, default/train/0000.parquet."""

from collections.abc import Iterable

from base.errors import UserError
from images.dataset.tree import split_of_shard


def splits_of_shards(folder: str, paths: Iterable[str]) -> dict[str, str]:
    """The split of each file: the split that is a word in its name, or else in the nearest folder that has one.

    Args:
      folder: the data folder, for messages.
      paths: paths of the files in the folder, without the suffixes of archives.

    Returns:
      Path to split. All splits are "" unless every file has one, and there are two splits or more.

    Raises:
      UserError: two folders beside each other have files for the same split, as two configurations of one data set on
        Hugging Face do, which mostly hold the same images.
    """
    places = {path: _place(path) for path in paths}
    homes: dict[str, str] = {}  # of each split
    for home, split in sorted(set(places.values())):
        other = homes.setdefault(split, home) if split else home
        if other != home:
            one, two = (name or "the folder itself" for name in (other, home))
            raise UserError(
                f"{folder}: {one} and {two} both have files for {split}, which may be the same images twice; "
                f"give one of these folders as data.path, or move all files into one"
            )
    splits = {path: split for path, (_, split) in places.items()}
    return splits if all(splits.values()) and len(set(splits.values())) > 1 else dict.fromkeys(splits, "")


def _place(path: str) -> tuple[str, str]:
    """The folder around the part of the path that names the split, and the split; ("", "") if no part names one."""
    parts = path.split("/")
    for end in range(len(parts) - 1, -1, -1):
        if split := split_of_shard(parts[end]):
            return "/".join(parts[:end]), split
    return "", ""
