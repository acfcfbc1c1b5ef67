"""The version of a model that is served: finds the newest, loads it beside the current one, and then replaces this one.

A version whose files are not those that its record names, or that is not signed by the key that is asked for, is not loaded.
"""

import asyncio
import gc
import logging
from collections.abc import Callable
from pathlib import Path

from base.errors import UserError
from components.pusher.integrity import find_problem
from pipeline.serving.folders import is_version, numbered_versions
from pipeline.serving.model import Model

logger = logging.getLogger("fpn")

Snapshot = tuple[tuple[str, int, int], ...]


class Versions:
    """The versions of a model, as TensorFlow Serving takes them: numbered folders, of which the newest is served.

    Attributes:
      current: the version that answers; replaced as a whole, so that a request can go on with the version that it has.
    """

    current: Model

    def __init__(self, folder: Path, public_key: Path | None = None) -> None:
        """Loads the newest version that can be loaded.

        Args:
          folder: a SavedModel, which is then the only version, or a folder of numbered versions.
          public_key: PEM file; versions must then be signed by this key.

        Raises:
          UserError: there is no version that can be loaded.
        """
        self._folder = folder
        self._public_key = public_key
        self._is_single = is_version(folder)
        self._broken: dict[int, Snapshot] = {}
        self._seen: tuple[int, Snapshot] | None = None
        candidates = [folder] if self._is_single else list(numbered_versions(folder).values())
        reason = f"{folder}: no SavedModel here"
        for path in candidates:
            try:
                self.current = self._load_intact(path, int(path.name) if path.name.isdigit() else 1)
                return
            except Exception as error:
                logger.warning("%s can't be loaded: %s", path, error)
                if path.name.isdigit():
                    self._broken[int(path.name)] = self._snapshot(path)
                reason = f"{path}: can't be loaded: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        raise UserError(f"{reason}; push the model again")

    async def watch(self, seconds: float, on_change: Callable[[Model], None]) -> None:
        """Looks for a new version every `seconds`, and serves it as soon as it is loaded and warmed up."""
        while not self._is_single:
            await asyncio.sleep(seconds)
            try:
                found = await asyncio.to_thread(self._newest)
                if found and (model := await asyncio.to_thread(self._load, *found)):
                    self.current = model
                    on_change(model)
                    logger.info("serving version %d", model.version)
                    del model
                    await asyncio.to_thread(gc.collect)  # the old version's graph is full of reference cycles
            except Exception:
                logger.exception("looking for a new version failed; looking again")

    def _newest(self) -> tuple[int, Path, Snapshot] | None:
        """The newest version that can be served, if it is not the current one and has not changed since the last look."""
        for version, path in numbered_versions(self._folder).items():
            if version == self.current.version:
                return None
            snapshot = self._snapshot(path)
            if self._broken.get(version) == snapshot:
                continue
            if self._seen == (version, snapshot):
                return version, path, snapshot
            self._seen = (version, snapshot)
            return None
        return None

    def _load(self, version: int, path: Path, snapshot: Snapshot) -> Model | None:
        try:
            model = self._load_intact(path, version)
        except Exception as error:
            logger.warning("version %d can't be loaded, going on with %d: %s", version, self.current.version, error)
            self._broken[version] = snapshot
            return None
        return model if self._snapshot(path) == snapshot else None  # else it was still being written: look again

    def _snapshot(self, path: Path) -> Snapshot:
        """What a verdict about a version depends on: its files, and the key."""
        if not self._public_key or not self._public_key.is_file():
            return _snapshot(path)
        status = self._public_key.stat()  # of what a link leads to, as in a mounted Secret
        return (*_snapshot(path), ("", status.st_size, status.st_mtime_ns))

    def _load_intact(self, path: Path, version: int) -> Model:
        """Loads a version.

        Raises:
          Exception: it is damaged or not signed, or what `Model` raises.
        """
        if problem := find_problem(str(path), self._public_key):
            raise ValueError(problem)
        return Model(path, version)


def _snapshot(folder: Path) -> Snapshot:
    """Names, sizes and times of all files; they show whether something is still being written."""
    files = []
    for path in sorted(folder.rglob("*")):
        try:
            status = path.lstat()
        except FileNotFoundError:  # deleted since the folder was listed
            continue
        files.append((str(path.relative_to(folder)), status.st_size, status.st_mtime_ns))
    return tuple(files)
