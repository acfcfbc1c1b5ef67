"""The state folder, which replaces the metadata store where no store keeps the artifacts of earlier runs.

It has `statistics/DIGEST/` with the statistics of each of the last two data sets, `statistics/order.json`, and
`pushed/VERSION/`.
"""

import functools
import hashlib
import io
import json
import os
from typing import Any, Final

from tfx.dsl.io import fileio
from tfx.types import Artifact, standard_artifacts
from tfx.utils import io_utils

from storage.files import replace_file

_ORDER: Final = "order.json"  # [{"digest", "splits"}], oldest first
_MAX_KEPT: Final = 2  # data sets: that of this run and the previous one


def pushed_folder(state: str) -> str:
    """The folder to which blessed models are pushed."""
    return os.path.join(state, "pushed")


def previous_statistics(state: str, current: Artifact) -> Artifact | None:
    """The statistics that were kept last and differ from those of this run; None if there are none.

    Args:
      state: the state folder.
      current: the statistics of this run, of type ExampleStatistics.
    """
    own = _digest([(path, _read(os.path.join(current.uri, path))) for path in _files(current.uri)])
    for entry in reversed(_read_order(state)):
        if entry["digest"] != own:
            found = standard_artifacts.ExampleStatistics()
            found.uri, found.split_names = os.path.join(_statistics_folder(state), entry["digest"]), entry["splits"]
            return found
    return None


def keep_statistics(state: str, current: Artifact) -> None:
    """Copies the statistics of this run into the state folder, as the last ones, and deletes all but the last two.

    Args:
      state: the state folder.
      current: the statistics of this run, of type ExampleStatistics.
    """
    content = [(path, _read(os.path.join(current.uri, path))) for path in _files(current.uri)]
    digest, folder = _digest(content), _statistics_folder(state)
    for path, data in content:
        copy = os.path.join(folder, digest, path)
        fileio.makedirs(os.path.dirname(copy))
        replace_file(copy, functools.partial(_write, data))
    order = [entry for entry in _read_order(state) if entry["digest"] != digest]
    order.append({"digest": digest, "splits": current.split_names})
    replace_file(os.path.join(folder, _ORDER), functools.partial(_write, json.dumps(order[-_MAX_KEPT:]).encode()))
    for entry in order[:-_MAX_KEPT]:
        io_utils.delete_dir(os.path.join(folder, entry["digest"]))


def last_digest(state: str) -> str:
    """Digest of the statistics that were kept last, or "none"; it is a part of a cache key.

    Args:
      state: the state folder.
    """
    order = _read_order(state)
    return order[-1]["digest"] if order else "none"


def _statistics_folder(state: str) -> str:
    return os.path.join(state, "statistics")


def _read_order(state: str) -> list[dict[str, Any]]:
    path = os.path.join(_statistics_folder(state), _ORDER)
    return json.load(io.BytesIO(_read(path))) if fileio.exists(path) else []


def _files(folder: str) -> list[str]:
    """Paths of all statistics files, relative to the artifact's folder."""
    splits = sorted(name.rstrip("/") for name in fileio.listdir(folder) if name.startswith("Split-"))
    return [os.path.join(split, name) for split in splits for name in sorted(fileio.listdir(os.path.join(folder, split)))]


def _read(path: str) -> bytes:
    with fileio.open(path, "rb") as file:
        return file.read()


def _write(data: bytes, file: Any) -> None:
    file.write(data)


def _digest(content: list[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for path, data in content:
        digest.update(f"{path}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()
