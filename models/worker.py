"""One of the workers of a training on several machines, other than the first, which is the Trainer of `fpn run`.

    TF_CONFIG='{"cluster": ..., "task": {"type": "worker", "index": 1}}' .venv/bin/python -m models.worker

It waits for the others, gets from the first what to train, and ends with it. See docs/scaling.md.
"""

import argparse
import logging
import sys

from models.training import train_as_worker
from models.workers import WorkersError


def main() -> int:
    """Trains.

    Returns:
      Exit status: 0 done, 2 what the environment or the configuration says can't be done, 1 anything else.
    """
    argparse.ArgumentParser(prog="python -m models.worker", description=__doc__.splitlines()[0]).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        train_as_worker()
    except WorkersError as error:
        print(f"models.worker: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
