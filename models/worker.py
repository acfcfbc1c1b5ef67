"""One of the workers of a training on several machines, other than the first, which is the Trainer of `fpn run`.

    TF_CONFIG='{"cluster": ..., "task": {"type": "worker", "index": 1}}' .venv/bin/python -m models.worker

It waits for the others, gets from the first what to train, and ends with it. See docs/scaling.md. In pods of Kubeflow, which
have no Trainer, the first worker is one of these, too.
"""

import argparse
import json
import logging
import signal
import sys

import tensorflow as tf

from models.backbone import WeightsError
from models.distillation import TeacherError
from models.memory import OutOfMemoryError
from models.training import train_as_worker
from models.workers import LostWorkerError, WorkersError


def main() -> int:
    """Trains.

    Returns:
      Exit status: 0 done, 2 what the environment or the configuration says can't be done, 1 anything else.
    """
    parser = argparse.ArgumentParser(prog="python -m models.worker", description=__doc__.splitlines()[0])
    parser.add_argument("--arguments", help="file with what to train, for a first worker that is no Trainer")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # which Python could not handle while TensorFlow waits for the others
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        train_as_worker(json.loads(tf.io.gfile.GFile(options.arguments).read()) if options.arguments else None)
    except (OutOfMemoryError, WorkersError, TeacherError, WeightsError, LostWorkerError) as error:
        print(f"models.worker: {error}", file=sys.stderr)
        return 1 if isinstance(error, LostWorkerError) else 2
    print("models.worker: trained")
    return 0


if __name__ == "__main__":
    sys.exit(main())
