"""Models that are never blessed: those whose answers are no numbers, or the same for all images."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from evaluation.predictions import Predictions
from evaluation.soundness import judge_answers
from models import features


def predictions(
    probabilities: Sequence[Sequence[float]],
    labels: str,
    looks: Sequence[float] | None = None,
    not_finite: int = 0,
    multi_label: bool = False,
) -> Predictions:
    """Answers to images of classes by their letters, which look different unless told otherwise."""
    values = np.array(probabilities, np.float32)
    rows = pd.DataFrame({features.FILENAME: [f"{number}.png" for number in range(len(labels))], features.LABEL: list(labels)})
    rows[features.MEAN] = list(looks) if looks else np.linspace(0, 1, len(labels))
    return Predictions(rows, list("abcd"[: values.shape[1]]), multi_label, values, not_finite=not_finite)


@pytest.mark.parametrize(
    "answers",
    [
        predictions([[0.6, 0.4], [0.4, 0.6]], "ab"),
        predictions([[0.6, 0.4], [0.6, 0.40001]], "ab"),
        predictions([[0.9, 0.1]], "b"),  # one image
        predictions(np.zeros((0, 2)), ""),
        predictions([[1.0], [1.0]], "aa"),  # one class
        predictions([[1.0, 0.0], [1.0, 0.0]], "aa"),  # certain, and right
        predictions([[0.6, 0.4], [0.6, 0.4]], "ab", looks=[0.5, 0.5]),  # copies of one image
        predictions([[0.9], [0.2]], "ab", multi_label=True),
    ],
)
def test_what_a_sound_model_may_answer_is_not_judged(answers: Predictions) -> None:
    assert judge_answers(answers) == []


@pytest.mark.parametrize(
    "answers",
    [
        predictions([[0.6, 0.4], [0.6, 0.4]], "ab"),
        predictions([[0.6, 0.4], [0.6, 0.4]], "aa"),
        predictions([[1.0, 0.0], [1.0, 0.0]], "ab"),
        predictions([[0.25] * 4] * 3 + [[0.2500001] + [0.25] * 3], "abca"),  # rounded otherwise
        predictions([[0.7], [0.7]], "aa", multi_label=True),
    ],
)
def test_the_same_answer_to_all_images_fails(answers: Predictions) -> None:
    (verdict,) = judge_answers(answers)
    assert not verdict.passed
    number = len(answers.rows)
    assert str(verdict) == (
        f"different answers on all examples must be at least 2, is 1.0000 (all {number} images get the same probabilities)"
    )


@pytest.mark.parametrize("missing", [1, 4])
def test_answers_that_are_no_numbers_fail(missing: int) -> None:
    values = [[0.6, 0.4], [0.3, 0.7], [0.6, 0.4], [0.3, 0.7]][missing:] + [[0.0, 0.0]] * missing
    (verdict,) = judge_answers(predictions(values, "abab", not_finite=missing))
    assert not verdict.passed
    assert str(verdict) == (
        f"finite answers on all examples must be at least 1, is {1 - missing / 4:.4f} "
        f"({missing} of 4 images have probabilities that are not finite numbers)"
    )
