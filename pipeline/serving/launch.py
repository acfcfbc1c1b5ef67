"""`fpn serve`: checks its options before it loads TensorFlow, which takes seconds."""

import argparse
import os
import socket

from base.errors import UserError
from base.paths import check_for_tensorflow
from pipeline.captured.shards import ShardWriter
from pipeline.serving.folders import is_version, numbered_versions
from pipeline.serving.security import read_security


def serve(options: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT.

    Args:
      options: the options of `fpn serve`.

    Raises:
      UserError: there is no model, TensorFlow can't use its path, the server can't listen on the address, its token or
        certificate can't be used, or the folder for what is captured can't be written.
    """
    check_for_tensorflow(options.model, "--model")
    if not is_version(options.model) and not numbered_versions(options.model):
        raise UserError(
            f"{options.model}: no SavedModel here; give the folder that a run has pushed to, such as output/digits/pushed"
        )
    security = read_security(options)
    shards = ShardWriter(options.capture, int(options.capture_gb * 1e9)) if options.capture else None
    listening = _listen(options.host, options.port)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    from pipeline.serving.server import run

    run(options, security, listening, shards)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise UserError(f"--host {host} --port {port}: {error}; choose another port, or 0 for any that is free") from error
