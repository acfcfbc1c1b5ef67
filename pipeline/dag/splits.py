"""The ingested splits that a run trains, watches and tests on."""

from dataclasses import dataclass
from typing import Final

from images.dataset import source


@dataclass(frozen=True)
class Splits:
    """The ingested splits in their roles: the model is fitted on `train`, watched on `eval` and evaluated on `test`.

    Attributes:
      folds: number of folds that ingestion makes instead of train, eval and test; None if it makes these three.
    """

    train: tuple[str, ...]
    eval: tuple[str, ...]
    test: tuple[str, ...]
    folds: int | None = None


TRAIN_EVAL_TEST: Final = Splits(("train",), ("eval",), ("test",))


def fold_splits(number: int, folds: int) -> Splits:
    """Roles of the folds in one run of a cross-validation.

    The given fold is `test`, the next one `eval` (after the last comes the first), and all others are `train`.

    Args:
      number: number of the fold to test on, 1 to `folds`.
      folds: number of folds, 3 or more.
    """
    names = source.fold_names(folds)
    test, watched = names[number - 1], names[number % folds]
    return Splits(tuple(name for name in names if name not in (test, watched)), (watched,), (test,), folds)
