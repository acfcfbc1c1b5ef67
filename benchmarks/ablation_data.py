"""The data sets of `benchmarks/ablation.py` that are made from others, each a folder with a manifest.csv of its own."""

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from shutil import copytree

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from base.local_files import new_file
from images.dataset import source
from pipeline.config.loading import load_config
from pipeline.config.whole import Config
from pipeline.dag.component_settings import source_settings
from pipeline.samples.digits import write_digits

QUARTER = "manifest-quarter.csv"
_CANVAS, _SIGN = 100, 33  # sides of the photograph and of the hand sign on it, in pixels; most files of hand signs have 100
_DEFECTIVE = 0.5  # probability from which on a solar cell counts as defective; the values are 0, 1/3, 2/3 and 1


def write_quarter(folder: Path) -> None:
    """Writes the digits, and a manifest with the same eval and test splits and a quarter of the source digits of train."""
    write_digits(folder)

    def rows() -> Iterable[tuple[str, ...]]:
        for row in _rows(load_config(Path("configs/digits.yaml"), data=str(folder))):
            if row.split != "train" or int(row.group) % 4 == 0:
                yield row.path, row.label, row.meta["size"], row.group, row.split

    _write_once(folder / QUARTER, ("path", "label", "size", "group", "split"), rows)


def write_elpv(package: Path, folder: Path) -> None:
    """Writes the pictures of solar cells of the package `elpv-dataset`, 300x300 grey, as functional or defective.

    Its licence is CC BY-NC-SA 4.0, and it asks to cite 10.1016/j.solener.2019.02.067.
    """

    def rows() -> Iterable[tuple[str, ...]]:
        copytree(package / "data" / "images", folder / "images", dirs_exist_ok=True)
        for line in (package / "data" / "labels.csv").read_text().splitlines():
            path, probability, kind = line.split()
            yield path, "defective" if float(probability) >= _DEFECTIVE else "functional", kind

    _write_once(folder / "manifest.csv", ("path", "label", "kind"), rows)


def write_pasted_signs(signs: Path, folder: Path) -> None:
    """Writes each hand sign at a third of its size on a photograph's crop, in the splits of the hand signs.

    The photographs are the two of scikit-learn; training has their left halves, eval and test their right halves.
    """
    photographs = load_sample_images().images

    def rows() -> Iterable[tuple[str, ...]]:
        random = np.random.default_rng(0)
        folder.mkdir(parents=True, exist_ok=True)
        for row in _rows(load_config(Path("configs/sign_digits.yaml"), data=str(signs))):
            with Image.open(signs / row.path) as file:
                sign = file.convert("RGB").resize((_SIGN, _SIGN), Image.Resampling.BOX)
            photograph = photographs[random.integers(len(photographs))]
            half = photograph.shape[1] // 2
            left, right = (0, half) if row.split == "train" else (half, photograph.shape[1])
            y = random.integers(photograph.shape[0] - _CANVAS + 1)
            x = random.integers(left, right - _CANVAS + 1)
            canvas = Image.fromarray(photograph[y : y + _CANVAS, x : x + _CANVAS])
            canvas.paste(sign, tuple(random.integers(_CANVAS - _SIGN + 1, size=2).tolist()))
            name = f"{row.label}_{Path(row.path).stem}.png"
            canvas.save(folder / name)
            yield name, row.label, row.split

    _write_once(folder / "manifest.csv", ("path", "label", "split"), rows)


def _rows(config: Config) -> list[source.Row]:
    return sorted(source.read_rows(config.data.path, source_settings(config.data)), key=lambda row: row.path)


def _write_once(path: Path, columns: tuple[str, ...], rows: Callable[[], Iterable[tuple[str, ...]]]) -> None:
    if path.exists():
        return
    with new_file(path) as unfinished, unfinished.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows())
