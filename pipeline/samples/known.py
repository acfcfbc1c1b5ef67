"""The data sets that the pipeline can write by itself: `data.sample`."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from pipeline.samples.digits import write_digits
from pipeline.samples.fashion_mnist import write_fashion_mnist

# Each function writes a data folder, and does nothing if the folder exists.
SAMPLES: Final[dict[str, Callable[[Path], None]]] = {"digits": write_digits, "fashion_mnist": write_fashion_mnist}
