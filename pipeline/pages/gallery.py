"""Chooses the test images that an evaluation's page shows, and reads their pictures."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from base.errors import UserError
from evaluation.predictions import Predictions
from images.dataset import source
from models import features
from pipeline.config.whole import Config
from pipeline.dag.component_settings import file_settings
from pipeline.pages.thumbnails import data_uri, read_originals, thumbnail
from pipeline.pushed.explanation import draw_combined, explain_files
from pipeline.pushed.pushed_model import Files

_MOST_PICTURES: Final = 240  # in all cells of the confusion matrix together
_MOST_A_CELL: Final = 8
_MOST_BYTES: Final = 512 << 20  # of files to read for the pictures; bounds time, not memory
_CARD_SIDE: Final = 128  # pixels of a picture with an overlay

Cell = tuple[int, int]


@dataclass(frozen=True)
class Card:
    """An image that deserves a closer look.

    Attributes:
      name: the image's name in ingestion's index.
      truth: names of its classes.
      answer: names of the classes in the model's answer.
      is_right: whether these are the same.
      asked: the class that `probability` and the overlay are for.
      probability: probability of `asked`, by the model.
      picture: data URI, or "" if the image can't be read.
      overlay: data URI of the image with the evidence for `asked`, or "".
      shares: each pyramid level's share in the evidence, finest first.
    """

    name: str
    truth: str
    answer: str
    is_right: bool
    asked: str
    probability: float
    picture: str = ""
    overlay: str = ""
    shares: dict[str, float] | None = None


class Gallery:
    """Reads each image at most once for all pictures of a call."""

    def __init__(self, config: Config, predictions: Predictions) -> None:
        self._folder = source.root_of(config.data.path)
        self._settings = file_settings(config)
        self._predictions = predictions
        self._names = predictions.rows[features.FILENAME].to_numpy(object)

    def pictures(self, rows: Iterable[int]) -> dict[int, tuple[str, str]]:
        """(Name, thumbnail) of images by row, without those that can't be read, or the last ones if the files are huge."""
        wanted = {str(self._names[row]): row for row in rows}
        return {wanted[name]: (name, picture) for name, picture in self.thumbnails(wanted).items()}

    def thumbnails(self, names: Iterable[str]) -> dict[str, str]:
        """Thumbnails of images of any split by name; those that can't be read are missing, as in `pictures`."""
        found: dict[str, str] = {}
        size = 0
        for name, encoded in read_originals(self._folder, names, self._settings):
            found[name] = thumbnail(encoded)
            size += len(encoded)
            if size > _MOST_BYTES:
                break
        return found

    def cards(self, chosen: list[tuple[int, int]], model: Path | None) -> tuple[list[Card], str]:
        """A card for each pair (row, class to explain), and the reason why there are no overlays, or ""."""
        cards = [self._card(row, number) for row, number in chosen]
        encoded = dict(read_originals(self._folder, dict.fromkeys(card.name for card in cards), self._settings))
        shown = [number for number, card in enumerate(cards) if card.name in encoded]
        pictures: dict[int, dict[str, Any]] = {number: {"picture": thumbnail(encoded[cards[number].name])} for number in shown}
        reason = ""
        if model and shown:
            names = [cards[number].name for number in shown]
            files = Files([Path(name) for name in names], [encoded[name] for name in names])
            try:
                found = list(explain_files(model, files, [cards[number].asked for number in shown]))
            except UserError as error:
                found, reason = [], str(error)
            for number, explanation in zip(shown, found, strict=False):
                plain, overlay = (data_uri(image) for image in draw_combined(explanation, _CARD_SIDE))
                pictures[number] = {"picture": plain, "overlay": overlay, "shares": explanation.shares}
        return [Card(**{**vars(card), **pictures.get(number, {})}) for number, card in enumerate(cards)], reason

    def _card(self, row: int, number: int) -> Card:
        given = self._predictions
        answers = given.answers(given.probabilities[row : row + 1])[0]
        answered = np.flatnonzero(answers) if given.multi_label else [answers]
        answer = [given.classes[item] for item in answered]
        label = given.rows[features.LABEL].iloc[row]
        truth = features.split_labels(label, given.multi_label)
        probability = float(given.probabilities[row, number])
        is_right = sorted(truth) == sorted(answer)
        return Card(str(self._names[row]), ", ".join(truth), ", ".join(answer), is_right, given.classes[number], probability)


def choose_by_cell(
    cells: dict[Cell, np.ndarray], confidence: dict[Cell, np.ndarray], is_error: dict[Cell, bool]
) -> dict[Cell, np.ndarray]:
    """Rows of the images to show for each cell of a confusion matrix: the most confident answers.

    There is a limit for all cells together. If it is reached, errors go before right answers, and frequent cells before rare.

    Args:
      cells: for each cell the rows of its images, int64 [n].
      confidence: for each cell the confidence of these answers, float [n].
      is_error: for each cell whether its answers are wrong.
    """
    filled = [cell for cell, rows in cells.items() if len(rows)]
    filled.sort(key=lambda cell: (not is_error[cell], -len(cells[cell])))
    each = min(_MOST_A_CELL, max(1, _MOST_PICTURES // max(len(filled), 1)))
    return {cell: cells[cell][np.argsort(-confidence[cell], kind="stable")[:each]] for cell in filled[:_MOST_PICTURES]}


def worst_mistakes(predictions: Predictions, most: int) -> list[tuple[int, int]]:
    """(Row, class that the image is mistaken for) of the wrong answers that the model is most sure of.

    For multi-label data, the class is the one whose probability is farthest from the truth, on the wrong side of 0.5.
    """
    probabilities, labels = predictions.probabilities, predictions.labels
    answers = predictions.answers()
    if predictions.multi_label:
        error = np.where(answers != labels, np.abs(labels - probabilities), 0)
    else:
        error = np.where(answers != labels, probabilities.max(axis=1), 0)[:, None]
    return _largest(error, answers, predictions.multi_label, most, 0)


def least_sure(predictions: Predictions, most: int) -> list[tuple[int, int]]:
    """(Row, most probable class) where its probability is lowest; for multi-label data, where a class is nearest to 0.5."""
    probabilities = predictions.probabilities
    doubt = -np.abs(probabilities - 0.5) if predictions.multi_label else -probabilities.max(axis=1)[:, None]
    return _largest(doubt, predictions.answers(), predictions.multi_label, most, -np.inf)


def _largest(values: np.ndarray, answers: np.ndarray, multi_label: bool, most: int, above: float) -> list[tuple[int, int]]:
    """(Row, class) of the largest values, the largest first; `values` is float [N, classes or 1]."""
    best = values.max(axis=1, initial=-np.inf)
    rows = np.argsort(-best, kind="stable")[:most]
    classes = values.argmax(axis=1) if multi_label else answers
    return [(int(row), int(classes[row])) for row in rows if best[row] > above]
