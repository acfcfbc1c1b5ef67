"""The driver that notices changed data: its fingerprint covers every file, at any depth."""

from typing import Any

from tfx.components.example_gen import driver, input_processor

from components.image_example_gen import source


class _FilesProcessor(input_processor.FileBasedInputProcessor):
    def resolve_span_and_version(self) -> tuple[int, None]:
        self._fingerprint = source.fingerprint(self._input_base_uri)
        return 0, None


class Driver(driver.FileBasedDriver):
    """Fingerprints the whole folder, where the stock driver sees the files of one directory level only."""

    def get_input_processor(self, splits: Any, range_config: Any = None, input_base_uri: str | None = None) -> _FilesProcessor:
        return _FilesProcessor(input_base_uri, splits, range_config)
