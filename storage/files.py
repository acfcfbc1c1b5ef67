"""Writes files on any file system as a whole: first under a temporary name, then renamed.

Files are read and written through Beam's file systems and through TFX's, which are TensorFlow's. TFX's file system for
s3:// is `storage.s3`; importing this module registers it.
"""

from collections.abc import Callable
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions
from tfx.dsl.io import fileio

import storage.s3  # noqa: F401
from models.files import replaced
from storage.stores import open_to_write


def remove_markers(folder: str) -> None:
    """Deletes folder markers: the empty objects with a name ending in a slash that TensorFlow leaves on gs://.

    Other programs take the markers for files. Real files are not deleted.

    Args:
      folder: a URI. Nothing is done unless it begins with gs://.
    """
    if not folder.startswith("gs://"):
        return
    from apache_beam.io.gcp.gcsio import GcsIO

    root = folder.rstrip("/") + "/"
    # The file system's own delete() would delete everything below a path that ends in a slash.
    store = GcsIO(pipeline_options=PipelineOptions([]))
    for path, size in list(store.list_files(root)):
        if size == 0 and path.endswith("/"):
            store.delete(path)


def replace_file(path: str, write: Callable[[Any], Any]) -> None:
    """Writes a file so that it exists as a whole or not at all.

    Args:
      path: a local path, or a URI of one of Beam's file systems.
      write: is called with the open binary file.
    """
    with replaced(path, fileio) as unfinished, open_to_write(unfinished) as file:
        write(file)
