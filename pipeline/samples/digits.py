"""The built-in data set: handwritten digits at three sizes, to see the whole pipeline work without a download."""

import csv
from pathlib import Path

from base.local_files import new_folder

CANVAS = 32  # pixels
SIZES = {"small": 14, "medium": 20, "large": 28}  # pixels


def write_digits(folder: Path) -> None:
    """Writes 5,391 grey PNG files of 32x32 pixels and a `manifest.csv`; does nothing where the folder exists.

    Each of the 1,797 scanned digits of `sklearn.datasets.load_digits` (8x8 pixels, 17 grey levels) is pasted at three sizes
    at random places on a noisy canvas. The manifest's columns are `path`, `label`, `size` (small, medium or large) and
    `group` (the source digit, whose three pictures must not be spread over splits). The files are the same on every run.
    """
    if folder.exists():
        return
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    random = np.random.default_rng(seed=1612_03144)
    with new_folder(folder) as unfinished:
        rows = []
        for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            scan = Image.fromarray((pixels * 255 / 16).astype(np.uint8))
            for size, side in SIZES.items():
                path = f"{label}/{number:04d}_{size}.png"
                top, left = random.integers(0, CANVAS - side + 1, size=2)
                canvas = random.normal(30, 20, (CANVAS, CANVAS))
                canvas[top : top + side, left : left + side] += np.asarray(scan.resize((side, side), Image.Resampling.BICUBIC))
                (unfinished / path).parent.mkdir(exist_ok=True)
                Image.fromarray(canvas.clip(0, 255).astype(np.uint8)).save(unfinished / path)
                rows.append((path, label, size, number))
        with (unfinished / "manifest.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("path", "label", "size", "group"))
            writer.writerows(rows)
