"""Workers of one training as processes of this machine."""

import contextlib
import json
import os
import socket
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def free_addresses(count: int) -> list[str]:
    """Addresses on loopback at which nothing listens."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{item.getsockname()[1]}" for item in sockets]


def environment(addresses: list[str], index: int) -> dict[str, str]:
    """This process' environment for one of the workers at the addresses, with few threads."""
    config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    own = {"TF_CONFIG": json.dumps(config)} if addresses else {}
    return {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "2", "PYTHONPATH": str(PROJECT), **own}
