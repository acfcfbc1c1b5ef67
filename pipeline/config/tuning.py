"""The search for hyperparameters."""

import math
from typing import Any

from pydantic import Field, field_validator, model_validator

from models.choices import Algorithm
from pipeline.config.section import Count, Section


class RangeConfig(Section):
    """The range that the Tuner takes a number from."""

    min: int | float
    max: int | float
    log: bool = False
    step: int | float | None = None

    @model_validator(mode="after")
    def _can_be_drawn_from(self) -> "RangeConfig":
        if self.min >= self.max:
            raise ValueError(f"min ({self.min}) must be below max ({self.max})")
        if self.log and self.min <= 0:
            raise ValueError(f"with log, min ({self.min}) must be above 0")
        if self.step is not None and self.step <= (1 if self.log else 0):
            raise ValueError(f"step ({self.step}) must be above {'1, for log multiplies by it' if self.log else 0}")
        return self

    def steps(self) -> list[int | float]:
        """The values from min to max in steps of `step`, which is a difference, or with log a factor."""
        assert self.step is not None
        if self.log:
            count = math.floor(math.log(self.max / self.min, self.step) + 1e-9) + 1
            values = [self.min * self.step**number for number in range(count)]
        else:
            count = math.floor((self.max - self.min) / self.step + 1e-9) + 1
            values = [self.min + self.step * number for number in range(count)]
        return [value if isinstance(value, int) else float(f"{value:.12g}") for value in values]  # 0.3, not 0.30000000000000004


class TuneConfig(Section):
    """A search for hyperparameters before the training, which then uses the best ones."""

    enabled: bool = Field(False, description="search before training")
    trials: Count = Field(10, description="sets of values to try; fewer if the space has fewer")
    epochs: Count = Field(3, description="`train.epochs` of a trial; frozen epochs come before, as ever")
    algorithm: Algorithm = Field(
        "random", description="bayesian: a Gaussian process proposes, once three times as many trials as keys are known"
    )
    space: dict[str, Any] = Field(
        {},
        description="keys of `train`, `model` and `augment`, each with a list of choices or `{min, max, log, step}`; "
        "the best trial is the one with the best `train.monitor`",
    )

    @field_validator("space", mode="before")
    @classmethod
    def _flat(cls, space: Any) -> Any:
        """Flattens nested keys: `--set tune.space.train.learning_rate=...` nests what a file writes with dots."""
        if not isinstance(space, dict):
            return space
        flat: dict[Any, Any] = {}
        for key, value in space.items():
            nested = key in TUNED_SECTIONS and isinstance(value, dict)
            flat |= {f"{key}.{inner}": item for inner, item in value.items()} if nested else {key: value}
        return flat


TUNED_SECTIONS = ("train", "model", "augment")
