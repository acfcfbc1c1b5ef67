"""What is needed to use a pushed model: its newest version, and image files, read as ingestion reads them."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from base.errors import UserError
from base.inputs import read_json
from base.paths import check_for_tensorflow
from components.pusher.integrity import find_problem
from components.pusher.versions import served_version, version_folders
from images.file_settings import FileSettings, Pages
from images.files.decoding import RejectedImage, normalise
from images.files.regular_file import read_regular_file

_IMAGE_SETTINGS: Final = "assets.extra/image.json"  # written by models.export; importing that would load TensorFlow
MAX_PIXELS: Final = 100_000_000
_FEW: Final = 256  # images, for which it takes longer to optimize a model's graph than the graph is faster


def find_version(model: Path, public_key: Path | None = None) -> Path:
    """The SavedModel's folder: `model` itself, or the served one of the numbered versions in it.

    Args:
      model: a SavedModel, or a folder of numbered versions.
      public_key: PEM file; the SavedModel must then be signed by this key.

    Raises:
      UserError: there is no SavedModel, none that is intact and signed, TensorFlow can't use its path, or the key is
        none.
    """
    check_for_tensorflow(model, "--model")
    versions = version_folders(str(model))
    served = served_version(str(model), public_key) if versions else None
    if served:
        return Path(served.path)
    folder = versions[max(versions)] if versions else str(model)
    if not Path(folder, "saved_model.pb").is_file():
        raise UserError(f"{model}: no SavedModel here; give the folder that a run has pushed to, such as output/digits/pushed")
    if problem := find_problem(folder, public_key):
        what, cure = ("is not trusted", "push a signed one") if public_key else ("is damaged", "push the model again")
        raise UserError(f"{folder}: {what} ({problem}); {cure}")
    return Path(folder)


@dataclass(frozen=True)
class Failure:
    """A file that can't be answered, and why; it costs no other file its answer."""

    image: Path
    reason: str

    def __str__(self) -> str:
        cure = "" if ";" in self.reason else "; give an image file, such as PNG or JPEG"
        return f"{self.image}: {self.reason}{cure}"


@dataclass
class Files:
    """Image files as a SavedModel decodes them.

    Attributes:
      images: the files that can be read, in the order in which they were given.
      encoded: for each of them, its bytes or those of the PNG file that was made of it.
      failures: the other files. `ask` adds those that can't be decoded.
    """

    images: list[Path] = field(default_factory=list)
    encoded: list[bytes] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def ask(
        self, signature: Callable[..., Mapping[str, Any]], size: int, **inputs: Sequence[str]
    ) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Asks a model about the files.

        Args:
          signature: of a SavedModel; it takes `image_bytes` and `inputs`.
          size: number of files that are asked about at once.
          inputs: more inputs, with a value for each file.

        Yields:
          Each file that can be decoded, and its row of each output.
        """
        import tensorflow as tf

        def call(rows: Sequence[int]) -> dict[str, Any]:
            columns = {"image_bytes": self.encoded, **inputs}
            with _not_optimized() if len(self.images) <= _FEW else contextlib.nullcontext():
                answers = signature(**{name: tf.constant([values[row] for row in rows]) for name, values in columns.items()})
            return {name: values.numpy() for name, values in answers.items()}

        for start in range(0, len(self.images), size):
            rows: Sequence[int] = range(start, min(start + size, len(self.images)))
            try:
                answers = call(rows)
            except tf.errors.OpError:
                from images.loading import find_damage

                damage = dict(zip(rows, find_damage([self.encoded[row] for row in rows]), strict=True))
                if not any(damage.values()):
                    raise  # no file has caused it
                self.failures += [Failure(self.images[row], str(reason)) for row, reason in damage.items() if reason]
                rows = [row for row in rows if not damage[row]]
                answers = call(rows) if rows else {}
            for position, row in enumerate(rows):
                yield self.images[row], {name: values[position] for name, values in answers.items()}


@contextlib.contextmanager
def _not_optimized() -> Iterator[None]:
    """Functions that are called in this context start a second or two earlier, and are some percent slower.

    The option is the process's: not for several threads at a time.
    """
    import tensorflow as tf

    before = tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": before})


def read_files(images: Iterable[Path], folder: Path) -> Files:
    """Reads image files in any format that ingestion takes, for the SavedModel in a folder; sets aside what can't be read."""
    settings = file_settings(folder, MAX_PIXELS, "first")
    files = Files()
    for image in images:
        try:
            encoded = normalise(read_regular_file(image), image.name, settings)[0].encoded
        except OSError as error:
            files.failures.append(Failure(image, error.strerror or str(error)))
        except RejectedImage as reason:
            files.failures.append(Failure(image, str(reason)))
        else:
            files.images.append(image)
            files.encoded.append(encoded)
    return files


def file_settings(folder: Path, max_pixels: int, pages: Pages) -> FileSettings:
    """How files are read for a SavedModel: with the intensities that it was trained with; by type if it does not say.

    Args:
      folder: folder of the SavedModel.
      max_pixels: as in `FileSettings`.
      pages: as in `FileSettings`.
    """
    file = folder / _IMAGE_SETTINGS
    if not file.exists():
        return FileSettings(max_pixels=max_pixels, pages=pages, intensity="type", window=None)
    image = read_json(file, "push the model again")
    window = tuple(image["window"]) if image["window"] else None
    return FileSettings(max_pixels=max_pixels, pages=pages, intensity=image["intensity"], window=window)
