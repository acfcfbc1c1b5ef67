"""Turns answers of the signature `explain` into pictures for people."""

import base64
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from pipeline.pushed.overlay import overlay, panel_size, shown


def explained_rows(columns: Mapping[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """The answers of `:explain`, one for each image.

    Args:
      columns: outputs of the signature `explain`; see `models.export`.

    Returns:
      For each image `label`, `explained`, `probabilities`, `labels`, `label_set` and `unusual` as the signature has them,
      `shares` by level, and `pictures`, PNG files in base64 by name: what the network saw ("input"), where all levels together
      saw evidence ("combined"), and where each level saw it (by the level's name).
    """
    for row, pixels in enumerate(columns["images"]):
        labels, levels = _texts(columns["labels"][row]), _texts(columns["levels"][row])
        image = shown(pixels, *panel_size(*pixels.shape[:2]))
        heats = {"combined": columns["combined"][row], **dict(zip(levels, columns["maps"][row], strict=True))}
        yield {
            "label": columns["label"][row].decode(errors="replace"),
            "explained": columns["explained"][row].decode(errors="replace"),
            "probabilities": columns["probabilities"][row].tolist(),
            "labels": labels,
            **{name: columns[name][row].tolist() for name in ("label_set", "unusual") if name in columns},
            "shares": dict(zip(levels, columns["shares"][row].tolist(), strict=True)),
            "pictures": {"input": _png(image)} | {name: _png(overlay(image, heat)) for name, heat in heats.items()},
        }


def _texts(values: np.ndarray) -> list[str]:
    return [value.decode(errors="replace") for value in values.tolist()]


def _png(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
