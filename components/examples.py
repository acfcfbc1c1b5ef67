"""Lists the files of an Examples artifact."""

import os
from collections.abc import Iterable

from tfx.dsl.io import fileio
from tfx.types import Artifact, artifact_utils


def split_files(examples: Artifact, splits: Iterable[str] | None = None) -> list[str]:
    """Paths of all files in the given splits, sorted; in all splits if `splits` is None."""
    names = artifact_utils.decode_split_names(examples.split_names) if splits is None else splits
    folders = [artifact_utils.get_split_uri([examples], name) for name in names]
    return sorted(os.path.join(folder, name) for folder in folders for name in fileio.listdir(folder))
