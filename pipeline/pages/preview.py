"""One picture that shows augmented training images as the network sees them."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from base.errors import UserError
from base.local_files import new_file
from images.dataset.source import Row, read_rows, root_of
from images.files.decoding import RejectedImage, normalise
from images.files.reading import read_files
from pipeline.config.whole import Config
from pipeline.dag.component_settings import augment_settings, file_settings, image_settings, source_settings
from pipeline.samples.known import SAMPLES

_VERSIONS = 7  # augmented versions of each image, beside the original
_MIXED_WITH = 8  # images in a batch, at least: fewer have too few orders for that many different versions
_SMALLEST, _LARGEST = 128, 256  # pixels: least and largest side in the picture; other images are scaled by a whole factor
_GAP = 8
_NAME_WIDTH = 160  # pixels, at most, for the classes on the left
_BACKGROUND, _TEXT, _FAINT = (255, 255, 255), (30, 30, 30), (110, 110, 110)
_BEHIND_ALPHA = (200, 200, 200, 255)


def write_preview(config: Config, examples: int, output: Path) -> None:
    """Draws one row for each of a few training images: the resized image, then its augmented versions.

    The images are chosen at random from one class after the other; every call chooses the same ones. Each version comes from
    the function that training uses, applied to a batch of these images in another order.

    Args:
      config: the whole configuration; a built-in data set is written first if it is not there.
      examples: number of rows, 1 or more.
      output: the PNG file; replaced if there is one.

    Raises:
      UserError: the data can't be used, or the file can't be written.
    """
    if examples < 1:
        raise UserError(f"--examples {examples}: give 1 or more")
    if config.data.sample:
        SAMPLES[config.data.sample](Path(config.data.path))
    rows = [row for row in read_rows(config.data.path, source_settings(config.data)) if row.split == "train"]
    chosen = _choose(rows, max(examples, _MIXED_WITH), config)
    classes = sorted({label for row in rows for label in row.labels})
    images, versions = _augment(chosen, classes, config)
    picture = _draw([row.label for row, _ in chosen[:examples]], images[:examples], versions, classes, config)
    _write(picture, output)


def _choose(rows: list[Row], count: int, config: Config) -> list[tuple[Row, bytes]]:
    """Chooses rows, and returns them with their checked files; as far as possible, each class has one before any has two."""
    order = random.Random(config.train.seed)
    by_label: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row.path, row.record or 0)):
        by_label.setdefault(row.label, []).append(row)
    groups = [order.sample(group, len(group)) for group in by_label.values()]
    order.shuffle(groups)
    in_turn = (row for turn in itertools.zip_longest(*groups) for row in turn if row)
    chosen = list(itertools.islice(_readable(in_turn, config), count))
    if not chosen:
        raise UserError(f"{config.data.path}: no training image can be read; fpn run lists the reasons in rejected.csv")
    return chosen


def _readable(rows: Iterator[Row], config: Config) -> Iterator[tuple[Row, bytes]]:
    settings = file_settings(config)
    rows, read = itertools.tee(rows)
    for row, content in zip(rows, read_files(root_of(config.data.path), read), strict=True):
        if isinstance(content, RejectedImage):
            continue
        try:
            yield row, normalise(content, row.path, settings)[0].encoded
        except RejectedImage:
            continue  # ingestion skips it, too


def _augment(
    chosen: list[tuple[Row, bytes]], classes: list[str], config: Config
) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """The resized images, uint8 [N, height, width, channels], and for each version such images and labels [N, classes]."""
    import tensorflow as tf

    from models.augmentation import build_augmentation
    from models.preprocessing import images_from_files

    images = images_from_files(tf.constant([file for _, file in chosen]), image_settings(config.image)).numpy()
    labels = np.array([[name in row.labels for name in classes] for row, _ in chosen], np.float32)
    augment = build_augmentation(augment_settings(config.augment), config.train.seed)
    orders = np.random.default_rng(config.train.seed)
    versions = []
    for _ in range(_VERSIONS):
        order = orders.permutation(len(images))
        back = np.argsort(order)
        mixed_images, mixed_labels = augment(tf.constant(images[order]), tf.constant(labels[order]))
        versions.append((mixed_images.numpy()[back], mixed_labels.numpy()[back]))
    return images, versions


def _draw(
    names: list[str], images: np.ndarray, versions: list[tuple[np.ndarray, np.ndarray]], classes: list[str], config: Config
) -> Image.Image:
    title, caption = ImageFont.load_default(18), ImageFont.load_default(14)
    switched_on = [f"{key} {value}" for key, value in config.augment.model_dump().items() if value not in (0, "none")]
    mixes = bool(config.augment.mixup or config.augment.cutmix)
    scaled = _scale(images[0])
    line = 18
    step_x, step_y = scaled.width + _GAP, scaled.height + _GAP + (2 * line if mixes else 0)
    name_width = min(max(int(title.getlength(name)) + 1 for name in names), _NAME_WIDTH)
    left, top = name_width + 2 * _GAP, 2 * line + 4 * _GAP
    size = (left + step_x * (1 + len(versions)), top + step_y * len(images))
    picture = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(picture)

    def write(x: int, y: int, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int, faint: bool) -> None:
        draw.text((x, y), _shorten(text, font, width), font=font, fill=_FAINT if faint else _TEXT)

    heading = f"{config.name}: {', '.join(switched_on) or 'no augmentation is switched on'}"
    write(_GAP, _GAP, heading, title, size[0] - 2 * _GAP, faint=False)
    write(left, top - line - _GAP // 2, "resized", caption, scaled.width, faint=True)
    write(left + step_x, top - line - _GAP // 2, "augmented", caption, scaled.width, faint=True)
    for index, name in enumerate(names):
        y = top + index * step_y
        write(_GAP, y + scaled.height // 2 - line // 2, name, title, name_width, faint=False)
        picture.paste(_scale(images[index]), (left, y))
        for column, (changed, labels) in enumerate(versions, start=1):
            x = left + column * step_x
            picture.paste(_scale(changed[index]), (x, y))
            if mixes:
                for number, text in enumerate(_shares(labels[index], classes)[:2]):
                    write(x, y + scaled.height + 1 + number * line, text, caption, scaled.width, faint=True)
    return picture


def _scale(pixels: np.ndarray) -> Image.Image:
    """The image as RGB, in a size that a person can see; enlarged pixels stay squares."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, _BEHIND_ALPHA), image)
    side = max(image.size)
    if side > _LARGEST:
        image = image.reduce(-(-side // _LARGEST))
    elif side < _SMALLEST:
        factor = -(-_SMALLEST // side)
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    return image.convert("RGB")


def _shares(label: np.ndarray, classes: list[str]) -> list[str]:
    """The share of each class in a label, the largest first: "cat: 72 %" and "dog: 28 %"."""
    parts = [(float(share), name) for share, name in zip(label, classes, strict=True) if share >= 0.005]
    return [f"{name}: {share:.0%}".replace("%", " %") for share, name in sorted(parts, reverse=True)]


def _shorten(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, or its beginning with dots if the text is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _write(picture: Image.Image, output: Path) -> None:
    try:
        with new_file(output) as unfinished:
            picture.save(unfinished, "PNG")
    except OSError as error:
        raise UserError(f"{output}: can't be written ({error.strerror or error}); give another --output") from error
