"""A part of the embedded digits, for runs that take little more than loading TensorFlow."""

import csv
import shutil
from pathlib import Path

from pipeline.samples.digits import write_digits


def write_few_digits(folder: Path, count: int) -> None:
    """Writes the first so many digits, three pictures each, with their manifest; the rest lies beside the folder in `all`."""
    everything = folder.parent / "all"
    write_digits(everything)
    with (everything / "manifest.csv").open() as file:
        header, *rows = csv.reader(file)
    rows = [row for row in rows if int(row[3]) < count]
    for path, *_ in rows:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(everything / path, folder / path)
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
