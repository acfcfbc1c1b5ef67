"""Which version of a model is served: finds the newest, loads it beside the one that answers, and puts it in its place."""

import asyncio
import gc
import logging
from collections.abc import Callable
from pathlib import Path

from base.errors import UserError
from pipeline.serving.folders import is_version, numbered_versions
from pipeline.serving.model import Model

logger = logging.getLogger("fpn")

Snapshot = tuple[tuple[str, int, int], ...]


class Versions:
    """The versions of a model, as TensorFlow Serving takes them: numbered folders, of which the newest is served.

    Attributes:
      current: the version that answers; replaced as a whole, so whoever holds the last one can go on with it.
    """

    current: Model

    def __init__(self, folder: Path) -> None:
        """Loads the newest version that can be loaded.

        Args:
          folder: a SavedModel, which stays as it is, or a folder of numbered versions.

        Raises:
          UserError: there is none that can be loaded.
        """
        self._folder = folder
        self._is_single = is_version(folder)
        self._broken: dict[int, Snapshot] = {}
        self._seen: tuple[int, Snapshot] | None = None
        candidates = [folder] if self._is_single else list(numbered_versions(folder).values())
        reason = f"{folder}: no SavedModel here"
        for path in candidates:
            try:
                self.current = Model(path, int(path.name) if path.name.isdigit() else 1)
                return
            except Exception as error:
                logger.warning("%s can't be loaded: %s", path, error)
                if path.name.isdigit():
                    self._broken[int(path.name)] = _snapshot(path)
                reason = f"{path}: can't be loaded: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        raise UserError(f"{reason}; push the model again")

    async def watch(self, seconds: float, on_change: Callable[[Model], None]) -> None:
        """Looks for another newest version again and again, and serves it once it is loaded and warm."""
        while not self._is_single:
            await asyncio.sleep(seconds)
            try:
                found = await asyncio.to_thread(self._newest)
                if found and (model := await asyncio.to_thread(self._load, *found)):
                    self.current = model
                    on_change(model)
                    logger.info("serving version %d", model.version)
                    del model
                    await asyncio.to_thread(gc.collect)  # the last version's graph is full of cycles
            except Exception:
                logger.exception("looking for a new version failed; looking again")

    def _newest(self) -> tuple[int, Path, Snapshot] | None:
        """The newest version that can be served, if it is another one and has not changed since the last look."""
        for version, path in numbered_versions(self._folder).items():
            if version == self.current.version:
                return None
            snapshot = _snapshot(path)
            if self._broken.get(version) == snapshot:
                continue
            if self._seen == (version, snapshot):
                return version, path, snapshot
            self._seen = (version, snapshot)
            return None
        return None

    def _load(self, version: int, path: Path, snapshot: Snapshot) -> Model | None:
        try:
            model = Model(path, version)
        except Exception as error:
            logger.warning("version %d can't be loaded, going on with %d: %s", version, self.current.version, error)
            self._broken[version] = snapshot
            return None
        return model if _snapshot(path) == snapshot else None  # else it was being written; look again


def _snapshot(folder: Path) -> Snapshot:
    """Names, sizes and times of all files: whether something is still being written."""
    files = []
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        files.append((str(path.relative_to(folder)), status.st_size, status.st_mtime_ns))
    return tuple(files)
