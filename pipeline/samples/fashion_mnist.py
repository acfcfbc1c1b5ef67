"""Fashion-MNIST: 70,000 grey pictures of clothes in ten classes (Xiao et al. 2017, arXiv:1708.07747)."""

import gzip
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from base.errors import UserError
from base.local_files import new_folder

if TYPE_CHECKING:
    import numpy as np

PACKAGE_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # Debian's and Ubuntu's package dataset-fashion-mnist

CLASSES: Final = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
_SPLITS: Final = {"train": "train", "test": "t10k"}  # our folder -> how the file names begin
_UNSIGNED_BYTE: Final = 8  # code of the type in an IDX file


def write_fashion_mnist(folder: Path) -> None:
    """Writes 60,000 files `train/CLASS/NUMBER.png` and 10,000 `test/CLASS/NUMBER.png`; does nothing where the folder exists.

    The pictures are grey, 28x28 pixels. They are taken from the four files `*-ubyte.gz` of the data set, which must be beside
    `folder`, in its parent, or where the Debian package has put them.

    Raises:
      UserError: the files are in neither place, or are broken.
    """
    if folder.exists():
        return
    source = _find(folder.parent)
    with new_folder(folder) as unfinished:
        for split, prefix in _SPLITS.items():
            images = _read_idx(source / f"{prefix}-images-idx3-ubyte.gz", dimensions=3)
            labels = _read_idx(source / f"{prefix}-labels-idx1-ubyte.gz", dimensions=1)
            if len(images) != len(labels) or labels.max(initial=0) >= len(CLASSES):
                raise UserError(f"{source}: the labels of {prefix} do not belong to its images; fetch the four files again")
            for name in CLASSES:
                (unfinished / split / name).mkdir(parents=True)
            paths = [unfinished / split / CLASSES[label] / f"{number:05d}.png" for number, label in enumerate(labels)]
            with ThreadPoolExecutor() as pool:
                list(pool.map(_write_image, images, paths))


def _find(folder: Path) -> Path:
    names = [f"{prefix}-{kind}-ubyte.gz" for prefix in _SPLITS.values() for kind in ("images-idx3", "labels-idx1")]
    for place in (folder, PACKAGE_FOLDER):
        if all((place / name).is_file() for name in names):
            return place
    raise UserError(
        f"data.sample: Fashion-MNIST is not on this machine; `apt-get install dataset-fashion-mnist`, "
        f"or put {', '.join(names)} into {folder}"
    )


def _read_idx(path: Path, dimensions: int) -> "np.ndarray":
    """Reads a gzipped IDX file as a uint8 array.

    The format: two zero bytes, the type, the number of dimensions, each dimension as big-endian int32, the values.
    """
    import numpy as np

    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: can't be read ({error}); fetch it again") from error
    start = 4 + 4 * dimensions
    shape = tuple(np.frombuffer(content[4:start], ">i4")) if len(content) >= start else ()
    if content[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)) or len(content) - start != np.prod(shape, dtype=np.int64):
        raise UserError(f"{path}: not a whole IDX file of bytes in {dimensions} dimensions; fetch it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _write_image(pixels: "np.ndarray", path: Path) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path)
