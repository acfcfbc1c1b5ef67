"""ImageExampleGen: images of a folder or manifest as examples, in the splits train, eval and test, or in folds."""

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
    """Takes in images from class folders, a manifest or TFRecord files; see `source.find_rows`.

    Each file is decoded once; those that can't be used are set aside and listed in `rejected.csv` beside the splits, where
    `images.parquet` lists all. All rows of a group fall into one split.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)
    DRIVER_CLASS = driver.Driver

    def __init__(self, input_base: str, settings: IngestionSettings) -> None:
        """Creates the component.

        Args:
          input_base: the data folder.
          settings: how they are taken in.
        """
        # TFX takes the names from here; which row goes where is up to `source`.
        splits = [example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=1) for name in source.split_names(settings)]
        super().__init__(
            input_base=input_base,
            output_config=example_gen_pb2.Output(split_config=example_gen_pb2.SplitConfig(splits=splits)),
            custom_config=pack_settings(settings),
        )


def pack_settings(settings: IngestionSettings) -> example_gen_pb2.CustomConfig:
    """The component's settings as the message that the specification of file-based ExampleGens has room for."""
    struct = struct_pb2.Struct()
    struct["settings"] = packing.pack(settings)
    config = example_gen_pb2.CustomConfig()
    config.custom_config.Pack(struct)
    return config


class ScoreExampleGen(ImageExampleGen):
    """Takes in images that are no part of the training data, labelled or not, into one split."""

    def __init__(self, input_base: str, settings: IngestionSettings) -> None:
        """Creates the component; unusable files are set aside, however many there are.

        Args:
          input_base: the data folder.
          settings: as for ImageExampleGen.
        """
        super().__init__(input_base, replace(settings, labelled=False, duplicates="report", max_rejected=1.0))
