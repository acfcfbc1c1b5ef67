"""The `fpn` command. What a command needs is imported when it runs, so that `fpn --help` answers at once."""

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Sequence

from base.errors import INTERRUPTED, UserError
from base.full_disk import full_disk
from base.visible import print_error, visible
from pipeline.commands import cluster, look, train, use


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0 done, 3 not blessed, 2 bad usage or input, 130 Ctrl-C, 1 anything else."""
    options = _parser().parse_args(arguments)
    # With Python's thresholds, collecting the many objects of TensorFlow and TFX takes a tenth of the start-up.
    gc.set_threshold(50_000, 20, 20)
    try:
        return options.call(options)
    except KeyboardInterrupt:
        print_error("interrupted")
        return INTERRUPTED
    except Exception as error:
        told = full_disk(error, os.getcwd())
        if not told and not isinstance(error, UserError):
            raise
        for line in getattr(error, "__notes__", ()):
            print(visible(line), file=sys.stderr)
        print_error(told or error)
        return 1 if told else 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fpn", description="Trains, checks and ships image classifiers built on a Feature Pyramid Network."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for part in (train, look, use, cluster):
        part.add_commands(commands)
    return parser


def run_and_exit() -> None:
    """Runs `main` and ends the process at once: freeing all objects of TensorFlow and TFX would take a second."""
    status = main()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    run_and_exit()
