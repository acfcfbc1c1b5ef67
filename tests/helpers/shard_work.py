"""Work on shards for a Dask cluster, in modules that load at once."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from base.errors import UserError
from base.local_files import write_text


class Writer:
    """Writes a file for each shard, and a line into the list of what was begun; waits in the shards of `slow`."""

    def __init__(self, folder: Path, slow: tuple[int, ...] = ()) -> None:
        self._folder = folder
        self._slow = slow

    def setup(self) -> None:
        (self._folder / f"setup-{os.getpid()}-{time.monotonic_ns()}").touch()

    def process(self, shard: int) -> Iterator[int]:
        (self._folder / f"begun-{shard}-{os.getpid()}").touch()
        time.sleep(0.05)
        while shard in self._slow and not (self._folder / "go").exists():
            time.sleep(0.01)
        write_text(self._folder / f"{shard}.txt", f"{shard * shard}\n")
        yield shard


class Refuser:
    def setup(self) -> None:
        pass

    def process(self, shard: int) -> Iterator[int]:
        if shard == 3:
            raise UserError("row 3: is wrong; correct it")
        yield shard


class Killer:
    """Its shards end their workers, as the kernel does when there is no memory left."""

    def setup(self) -> None:
        pass

    def process(self, shard: int) -> Iterator[int]:
        os.kill(os.getpid(), signal.SIGKILL)
        yield shard
