"""The driver of ImageExampleGen, which detects changed data by a fingerprint over all files at any depth."""

from typing import Any

from tfx.components.example_gen import driver, input_processor

from components.image_example_gen.executor import unpack_settings
from images.dataset import source
from images.settings import IngestionSettings


class _FilesProcessor(input_processor.FileBasedInputProcessor):
    def __init__(self, folder: str, splits: Any, range_config: Any, settings: IngestionSettings) -> None:
        super().__init__(folder, splits, range_config)
        self._settings = settings

    def resolve_span_and_version(self) -> tuple[int, None]:
        self._fingerprint = source.fingerprint(self._input_base_uri, self._settings)
        return 0, None


class Driver(driver.FileBasedDriver):
    """Computes the fingerprint over all files of the data set; TFX's driver sees the files of one folder level only."""

    def resolve_exec_properties(
        self, exec_properties: dict[str, Any], pipeline_info: Any, component_info: Any
    ) -> dict[str, Any]:
        self._settings = unpack_settings(exec_properties)
        return super().resolve_exec_properties(exec_properties, pipeline_info, component_info)

    def get_input_processor(self, splits: Any, range_config: Any = None, input_base_uri: str = "") -> _FilesProcessor:
        return _FilesProcessor(input_base_uri, splits, range_config, self._settings)
