"""ImageExampleGen: makes examples from images, in the splits train, eval and test, or in folds."""

from dataclasses import replace

from google.protobuf import struct_pb2
from tfx.components.example_gen import component
from tfx.dsl.components.base import executor_spec
from tfx.proto import example_gen_pb2

from components.image_example_gen import driver, executor
from images.dataset import source
from images.settings import IngestionSettings
from models import packing


class ImageExampleGen(component.FileBasedExampleGen):
    """Reads images from class folders, a manifest or TFRecord files; see `source.find_rows`.

    Each file is decoded once. Files that can't be used are set aside and listed in `rejected.csv` beside the splits;
    `images.parquet` lists all files. All rows of a group are in one split.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)
    DRIVER_CLASS = driver.Driver

    def __init__(self, input_base: str, settings: IngestionSettings) -> None:
        """Creates the component.

        Args:
          input_base: the data folder.
          settings: how the images are read.
        """
        # TFX reads the names from here; `source` assigns rows to splits.
        splits = [example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=1) for name in source.split_names(settings)]
        super().__init__(
            input_base=input_base,
            output_config=example_gen_pb2.Output(split_config=example_gen_pb2.SplitConfig(splits=splits)),
            custom_config=pack_settings(settings),
        )


def pack_settings(settings: IngestionSettings) -> example_gen_pb2.CustomConfig:
    """Packs the settings into the message for custom configuration of TFX's file-based ExampleGens."""
    struct = struct_pb2.Struct()
    struct["settings"] = packing.pack(settings)
    config = example_gen_pb2.CustomConfig()
    config.custom_config.Pack(struct)
    return config


class ScoreExampleGen(ImageExampleGen):
    """Reads images that are not for training, labelled or not, into one split."""

    def __init__(self, input_base: str, settings: IngestionSettings) -> None:
        """Creates the component; any number of unusable files is set aside.

        Args:
          input_base: the data folder.
          settings: as in ImageExampleGen.
        """
        own = replace(settings, labelled=False, duplicates="report", max_rejected=1.0)
        # What is said of training does not hold for these images, and need not have them read anew.
        super().__init__(input_base, replace(own, originals="copy", store="uint8"))
