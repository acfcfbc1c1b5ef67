"""One HTML page about labels that are probably wrong: each image beside one of the class that is suggested."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from evaluation.predictions import Predictions
from images.dataset import source
from models import features
from pipeline.config.whole import Config
from pipeline.dag.component_settings import file_settings
from pipeline.pages.page import write_page
from pipeline.pages.thumbnails import read_originals, thumbnail

_MOST_PICTURES: Final = 120
_MOST_PAIRS: Final = 30  # of classes


def write_labels_page(
    config: Config,
    predictions: Predictions,
    issues: pd.DataFrame,
    twins: Mapping[str, Sequence[tuple[str, str]]],
    corrections: Path,
    output: Path,
) -> None:
    """Writes the page; it needs no other file and no network.

    Args:
      config: the whole configuration.
      predictions: of all images that were looked at.
      issues: as `label_issues.find_label_issues` returns them.
      twins: names and labels of the duplicates of an image that have another label, by its name.
      corrections: the file that a person is to edit.
      output: the HTML file; replaced if there is one.
    """
    shown = issues.head(_MOST_PICTURES)
    typical = _typical(predictions, set(shown["suggested"]))
    beside = {
        path: twins[path][0] if path in twins else (typical.get(label, ""), label)
        for path, label in zip(shown["path"], shown["suggested"], strict=True)
    }
    names = dict.fromkeys([*shown["path"], *(name for name, _ in beside.values() if name)])
    originals = read_originals(source.root_of(config.data.path), names, file_settings(config))
    pictures = {name: thumbnail(encoded) for name, encoded in originals}
    cards: list[dict[str, Any]] = [
        {
            **row._asdict(),
            "picture": pictures.get(row.path, ""),
            "beside": beside[row.path],
            "picture_beside": pictures.get(beside[row.path][0], ""),
            "is_twin": row.path in twins,
        }
        for row in shown.itertuples(index=False)
    ]
    counts = issues.groupby(["label", "suggested"]).size().sort_values(ascending=False, kind="stable")
    content = {
        "config": config,
        "when": datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        "images": len(predictions.rows),
        "issues": len(issues),
        "confused": [(*labels, int(count)) for labels, count in counts.head(_MOST_PAIRS).items()],
        "confused_left_out": max(0, len(counts) - _MOST_PAIRS),
        "cards": cards,
        "corrections": str(corrections.resolve()),
    }
    write_page("labels.html", output, content)


def _typical(predictions: Predictions, labels: set[str]) -> dict[str, str]:
    """For each label, the name of the image of which the models are surest that it has this label."""
    texts = predictions.rows[features.LABEL].to_numpy(object)
    names = predictions.rows[features.FILENAME].to_numpy(object)
    position = {name: number for number, name in enumerate(predictions.classes)}
    found = {}
    for label in sorted(labels):
        rows = np.flatnonzero(texts == label)
        if len(rows):
            classes = [position[name] for name in features.split_labels(label, predictions.multi_label)]
            has = np.isin(np.arange(len(position)), classes)
            shares = predictions.probabilities[rows]
            sure = np.where(has, shares, 1 - shares).min(axis=1)
            found[label] = str(names[rows[sure.argmax()]])
    return found
