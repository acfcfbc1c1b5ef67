"""Shows where a pushed model sees the evidence for its answers: computes its evidence maps, and draws them over the images."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from base.errors import UserError
from base.local_files import new_file
from models import features
from pipeline.pushed.overlay import overlay, panel_size, shown
from pipeline.pushed.prediction import format_answer
from pipeline.pushed.pushed_model import Failure, Files, find_version, read_files

_BATCH_SIZE: Final = 16

_MARGIN: Final = 10  # pixels
_CAPTION: Final = 15  # pixels: height of its letters
_TITLE: Final = 18


@dataclass(frozen=True)
class Explanation:
    """Why a model gives an image a label.

    Attributes:
      image: the file.
      label: the model's answer, as in `pipeline.pushed.prediction.predict`.
      explained: the class that the evidence is for; the most probable one unless another was requested.
      probabilities: probabilities of all classes, by label.
      shares: each level's share in the evidence, by the level's name, finest first; negative if the level argues against the
        class. Their absolute values add up to 1.
      pixels: uint8 [height, width, channels], what the network saw.
      maps: float32 [levels, h, w], 0..1, the heat of each level, comparable between levels.
      combined: float32 [h, w], 0..1, the heat of all levels together.
    """

    image: Path
    label: str
    explained: str
    probabilities: dict[str, float]
    shares: dict[str, float]
    pixels: np.ndarray
    maps: np.ndarray
    combined: np.ndarray


def explain(
    model: Path, images: list[Path], label: str | None = None, public_key: Path | None = None
) -> tuple[Iterator[Explanation], list[Failure]]:
    """Explains a model's answers to image files, in their order.

    Args:
      model: a SavedModel, or a folder of numbered versions, of which the newest is used.
      images: files in any format that ingestion takes; all are read before the first answer.
      label: the class to explain; if not given, the most probable class of each image.
      public_key: PEM file; the model must then be signed by this key.

    Returns:
      The explanations; and the files that can't be read, complete after the last explanation.

    Raises:
      UserError: there is no model, none that is intact and signed, it has no explanations or no such class.
    """
    folder = find_version(model, public_key)
    files = read_files(images, folder)
    return explain_files(folder, files, [label or ""] * len(files.images)), files.failures


def explain_files(folder: Path, files: Files, labels: list[str]) -> Iterator[Explanation]:
    """Explains a model's answers to images that have been read, in their order.

    Args:
      folder: the SavedModel.
      files: the images; those that the model can't decode are added to the failures.
      labels: the class to explain for each image; "" for the most probable one.

    Raises:
      UserError: the model has no explanations, or no such class, or its answers are not finite.
    """
    if not files.images:
        return

    import tensorflow as tf

    signatures = tf.saved_model.load(str(folder)).signatures
    if "explain" not in signatures:
        raise UserError(f"{folder}: was exported before models could explain themselves; run the pipeline again")
    if any(labels):
        known = (folder / "assets" / features.LABEL_VOCABULARY).read_text(encoding="utf-8").splitlines()
        if unknown := [label for label in labels if label and label not in known]:
            raise UserError(f"--label {unknown[0]}: the model knows {', '.join(known)}")
    for image, answer in files.ask(signatures["explain"], _BATCH_SIZE, label=labels):
        if not all(np.isfinite(answer[name]).all() for name in ("probabilities", "maps", "combined", "shares")):
            raise UserError(f"{folder}: the model's answers are not finite numbers, so nothing explains them; train again")
        classes, levels = ([name.decode() for name in answer[key]] for key in ("labels", "levels"))
        yield Explanation(
            image=image,
            label=answer["label"].decode(),
            explained=answer["explained"].decode(),
            probabilities=dict(zip(classes, answer["probabilities"].tolist(), strict=True)),
            shares=dict(zip(levels, answer["shares"].tolist(), strict=True)),
            pixels=answer["images"],
            maps=answer["maps"],
            combined=answer["combined"],
        )


def draw_combined(explanation: Explanation, side: int) -> tuple[Image.Image, Image.Image]:
    """The image as the network saw it, and the image with the heat of all levels; the longer side has `side` pixels."""
    height, width = explanation.pixels.shape[:2]
    scale = side / max(height, width)
    pixels = shown(explanation.pixels, max(1, round(height * scale)), max(1, round(width * scale)))
    return Image.fromarray(pixels), Image.fromarray(overlay(pixels, explanation.combined))


def draw(explanation: Explanation) -> Image.Image:
    """One picture of several panels: the image as the network saw it, with all levels, and with each level and its share."""
    height, width = panel_size(*explanation.pixels.shape[:2])
    pixels = shown(explanation.pixels, height, width)
    panels = [("input", pixels)]
    if len(explanation.shares) > 1:
        panels.append(("combined", overlay(pixels, explanation.combined)))
    for (level, share), heat in zip(explanation.shares.items(), explanation.maps, strict=True):
        panels.append((f"{level} {format_share(share)}", overlay(pixels, heat)))

    title = _title(explanation)
    title_font, font = ImageFont.load_default(_TITLE), ImageFont.load_default(_CAPTION)
    sheet_width = max(_MARGIN + len(panels) * (width + _MARGIN), 2 * _MARGIN + int(title_font.getlength(title)))
    top = 2 * _MARGIN + _TITLE
    sheet = Image.new("RGB", (sheet_width, top + height + _CAPTION + 2 * _MARGIN), "white")
    brush = ImageDraw.Draw(sheet)
    brush.text((_MARGIN, _MARGIN), title, "black", title_font)
    for column, (caption, panel) in enumerate(panels):
        left = _MARGIN + column * (width + _MARGIN)
        sheet.paste(Image.fromarray(panel), (left, top))
        brush.text((left + width / 2, top + height + _MARGIN / 2), caption, "black", font, anchor="ma")
    return sheet


def write_overlay(explanation: Explanation, folder: Path) -> Path:
    """Draws an explanation into a PNG file named like the image; returns its path.

    Explaining the same image again replaces its file. An image of the same name from elsewhere, or another class of the same
    image, gets a file name with a number at the end.

    Raises:
      UserError: the folder can't be written to.
    """
    source = f"{explanation.explained} in {explanation.image.resolve()}"
    number, path = 1, folder / f"{explanation.image.stem}.png"
    while path.exists() and _read_source(path) != source:
        number += 1
        path = folder / f"{explanation.image.stem}-{number}.png"
    remark = PngImagePlugin.PngInfo()
    remark.add_itxt("Source", source)
    sheet = draw(explanation)
    try:
        with new_file(path) as unfinished:
            sheet.save(unfinished, "PNG", pnginfo=remark)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; give another folder with --output") from error
    return path


def format_share(share: float) -> str:
    """Formats a share: -0.123 as "-12 %"."""
    return f"{share:+.0%}".replace("%", " %")


def as_json(explanation: Explanation, overlay: Path) -> dict[str, Any]:
    """What `fpn explain --json` prints for an image."""
    return {
        "image": str(explanation.image),
        "label": explanation.label,
        "explained": explanation.explained,
        "probabilities": explanation.probabilities,
        "shares": explanation.shares,
        "overlay": str(overlay),
    }


def _title(explanation: Explanation) -> str:
    def text(label: str) -> str:
        name, probability = format_answer(label, explanation.probabilities, ".1%")
        return f"{name} ({probability})".replace("%", " %") if probability else name

    if explanation.explained == explanation.label:
        return f"{explanation.image.name}: {text(explanation.label)}"
    return f"{explanation.image.name}: evidence for {text(explanation.explained)}; the answer is {text(explanation.label)}"


def _read_source(path: Path) -> str | None:
    try:
        return Image.open(path).info.get("Source")
    except OSError:
        return None
