"""A file system in memory, to be reached as Beam reaches those of the clouds."""

import io
from collections.abc import Iterator

import pytest
from apache_beam.io.filesystem import CompressionTypes, FileMetadata, FileSystem

FILES: dict[str, bytes] = {}


class MemoryFileSystem(FileSystem):
    @classmethod
    def scheme(cls) -> str:
        return "memory"

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        for path, content in FILES.items():
            if path.startswith(dir_or_prefix):
                yield FileMetadata(path, len(content), 0)

    def open(self, path: str, mime_type: str = "", compression_type: str = CompressionTypes.AUTO) -> io.BytesIO:
        try:
            return io.BytesIO(FILES[path])
        except KeyError:
            raise FileNotFoundError(path) from None

    def exists(self, path: str) -> bool:
        return path in FILES

    def has_dirs(self) -> bool:
        return False

    def _unused(self, *arguments: object) -> None:
        raise NotImplementedError

    join = split = mkdirs = create = copy = rename = delete = size = last_updated = checksum = metadata = _unused


@pytest.fixture
def memory() -> Iterator[dict[str, bytes]]:
    """URI -> content of the files below memory://."""
    yield FILES
    FILES.clear()
