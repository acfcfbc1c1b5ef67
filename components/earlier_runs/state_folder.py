"""What a run is compared with where no metadata store tells of earlier runs: a folder that outlives them.

It holds `statistics/DIGEST/`, those of the last two data sets, `statistics/order.json`, and `pushed/VERSION/`.
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

from components.pusher.versions import version_folders
from storage.files import replace_file

_ORDER: Final = "order.json"  # [{"digest", "splits"}], oldest first
_KEPT: Final = 2  # data sets: this run's own, and the one before


def pushed_folder(state: str) -> str:
    """Where blessed models are pushed to."""
    return os.path.join(state, "pushed")


def previous_statistics(state: str, current: Artifact) -> Artifact | None:
    """The statistics that were kept last and are not this run's own; None if there are none.

    Args:
      state: the folder.
      current: this run's, of type ExampleStatistics.
    """
    own = _digest([(path, _read(os.path.join(current.uri, path))) for path in _files(current.uri)])
    for entry in reversed(_read_order(state)):
        if entry["digest"] != own:
            found = standard_artifacts.ExampleStatistics()
            found.uri, found.split_names = os.path.join(_statistics(state), entry["digest"]), entry["splits"]
            return found
    return None


def keep_statistics(state: str, current: Artifact) -> None:
    """Copies this run's statistics into the folder, as the last ones.

    Args:
      state: the folder.
      current: of type ExampleStatistics.
    """
    content = [(path, _read(os.path.join(current.uri, path))) for path in _files(current.uri)]
    digest, folder = _digest(content), _statistics(state)
    for path, data in content:
        copy = os.path.join(folder, digest, path)
        fileio.makedirs(os.path.dirname(copy))
        replace_file(copy, functools.partial(_write, data))
    order = [entry for entry in _read_order(state) if entry["digest"] != digest]
    order.append({"digest": digest, "splits": current.split_names})
    replace_file(os.path.join(folder, _ORDER), functools.partial(_write, json.dumps(order[-_KEPT:]).encode()))
    for entry in order[:-_KEPT]:
        io_utils.delete_dir(os.path.join(folder, entry["digest"]))


def last_pushed(state: str, candidate: str) -> str | None:
    """The SavedModel that was pushed last and is not the candidate itself; None if there is none.

    Args:
      state: the folder.
      candidate: folder of a SavedModel.
    """
    own = _graph_digest(candidate)
    newest_first = reversed(version_folders(pushed_folder(state)).values())
    return next((path for path in newest_first if _graph_digest(path) != own), None)


def last_digest(state: str) -> str:
    """Digest of the statistics that were kept last, "none" if there are none: a part of a cache's key.

    Args:
      state: the folder.
    """
    order = _read_order(state)
    return order[-1]["digest"] if order else "none"


def _statistics(state: str) -> str:
    return os.path.join(state, "statistics")


def _graph_digest(folder: str) -> str:
    """Digest of a SavedModel's graph and of its index, which has checksums of all weights.

    Unlike the digest of a pushed version, of all files, it does not read the weights, and takes a copy with other assets for
    the same model.
    """
    paths = ["saved_model.pb", os.path.join("variables", "variables.index")]
    return _digest([(path, _read(os.path.join(folder, path))) for path in paths])


def _read_order(state: str) -> list[dict[str, Any]]:
    path = os.path.join(_statistics(state), _ORDER)
    return json.load(io.BytesIO(_read(path))) if fileio.exists(path) else []


def _files(folder: str) -> list[str]:
    """Paths of statistics, relative to the artifact's folder."""
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
