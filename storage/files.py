"""Whole files on file systems of any kind: written aside first, then renamed.

Files are read and written by Beam's file systems and by TFX's, which are TensorFlow's. For s3:// the latter is `storage.s3`,
which importing this module makes known.
"""

from collections.abc import Callable
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions
from tfx.dsl.io import fileio

import storage.s3  # noqa: F401
from models.files import replaced
from storage.stores import open_to_write


def remove_markers(folder: str) -> None:
    """Deletes the empty objects named as folders, with a slash at the end, that TensorFlow leaves on gs://.

    Others take them for files. Files and the folders that they are in stay.

    Args:
      folder: a URI; a local folder has none.
    """
    if not folder.startswith("gs://"):
        return
    from apache_beam.io.gcp.gcsio import GcsIO

    root = folder.rstrip("/") + "/"
    # Not by the file system's delete(), to which a slash at the end means all that is below.
    store = GcsIO(pipeline_options=PipelineOptions([]))
    for path, size in list(store.list_files(root)):
        if size == 0 and path.endswith("/"):
            store.delete(path)


def replace_file(path: str, write: Callable[[Any], Any]) -> None:
    """Writes a file so that it is there as a whole or not at all.

    Args:
      path: local, or on one of Beam's file systems.
      write: gets the open binary file.
    """
    with replaced(path, fileio) as unfinished, open_to_write(unfinished) as file:
        write(file)
