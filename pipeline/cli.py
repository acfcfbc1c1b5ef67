"""The `fpn` command. What a command needs is imported when it runs, so that `fpn --help` answers at once."""

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Sequence

from base.errors import UserError
from pipeline.commands import cluster, look, train, use


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0 done, 3 not blessed, 2 bad usage or input, 1 anything else."""
    options = _parser().parse_args(arguments)
    gc.set_threshold(50_000, 20, 20)  # TensorFlow and TFX make so many objects that collecting takes a tenth of the start-up
    try:
        return options.call(options)
    except UserError as error:
        print(f"fpn: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fpn", description="Trains, checks and ships image classifiers built on a Feature Pyramid Network."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for part in (train, look, use, cluster):
        part.add_commands(commands)
    return parser


def run_and_exit() -> None:
    """`main` as a process, which ends at once: to free what TensorFlow and TFX have made, object by object, takes a second."""
    status = main()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    run_and_exit()
