"""Starts the server in the environment that it has for itself."""

import argparse
import importlib.util
import os
import sys
from pathlib import Path
from typing import Final

from components.errors import UserError
from pipeline.serving.options import as_arguments

ENVIRONMENT: Final = ".venv-serving"  # in the project's folder


def serve(options: argparse.Namespace) -> None:
    """Becomes the server; does not return.

    It runs in this environment if KServe is installed in it (as in an image made for serving), else in the one that
    `make serving` makes: KServe asks for another version of psutil than the pipeline's packages are locked with.

    Args:
      options: of `fpn serve`.

    Raises:
      UserError: the environment is not there.
    """
    project = Path(__file__).parents[2]
    python = Path(sys.executable) if importlib.util.find_spec("kserve") else project / ENVIRONMENT / "bin" / "python"
    if not python.exists():
        raise UserError(f"{project / ENVIRONMENT}: the environment for serving is not there; make it with `make serving`")
    path = os.pathsep.join([str(project), *filter(None, [os.environ.get("PYTHONPATH")])])
    os.execve(python, [str(python), "-m", "pipeline.serving", *as_arguments(options)], {**os.environ, "PYTHONPATH": path})
