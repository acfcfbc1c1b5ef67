"""How a model is measured, judged, described and checked."""

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from evaluation.settings import SHORTCUT, Counted, IntervalMethod, RuleName
from pipeline.config.section import Count, Positive, Section


class ThresholdConfig(Section):
    """A bound on a metric, which a model must meet to be blessed."""

    metric: str = Field(
        description="name, as in docs/evaluation.md, computed though `evaluate.metrics` does not list it; or shortcut"
    )
    lower: float | None = Field(None, description="value must be at least this")
    upper: float | None = Field(None, description="value must be at most this")
    change: float | None = Field(
        None,
        description="value minus the served model's must be at least (where less is better: at most) this",
    )
    slice: dict[str, str] = Field({}, description="one or two features with their values; all images if not given")
    worst_of: list[str] = Field(
        [], max_length=2, description="one or two features: holds for the worst of their slices; not beside `slice`"
    )
    of: Counted = Field("images", description="whether images count, or groups by `evaluate.groups`")

    @model_validator(mode="after")
    def _is_clear(self) -> "ThresholdConfig":
        if self.lower is None and self.upper is None and self.change is None:
            raise ValueError(f"the threshold on {self.metric} needs lower, upper or change")
        if len(self.slice) > 2:
            raise ValueError(f"the threshold on {self.metric} can name two slice features, not {len(self.slice)}")
        if self.slice and self.worst_of:
            raise ValueError(f"the threshold on {self.metric} has both slice and worst_of; write two thresholds")
        if self.of == "groups" and (self.slice or self.worst_of or self.change is not None):
            raise ValueError(f"the threshold on {self.metric} of groups takes lower and upper alone")
        if self.metric == SHORTCUT:
            others = self.lower is not None or self.change is not None or self.slice or self.worst_of or self.of == "groups"
            if others or self.upper is None or not 0.5 < self.upper < 1:
                raise ValueError(f"the threshold on {SHORTCUT} takes upper alone, between 0.5, which is chance, and 1")
        return self


def _one_or_two(features: list[str]) -> list[str]:
    if not 1 <= len(features) <= 2:
        raise ValueError("a slice is a list of one or two features")
    return features


class GroupsConfig(Section):
    """How the images of a group (a patient, a product, a video) give one answer."""

    rule: RuleName = Field(
        "mean",
        description="mean or largest of the images' probabilities, the answer of most images, or `positive` if a share says so",
    )
    share: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="of rule `share`: least share of images")
    positive: str | None = Field(None, description="of rule `share`: the class; of two classes the other one is the rest")

    @model_validator(mode="after")
    def _share_has_a_class(self) -> "GroupsConfig":
        if self.rule == "share" and self.positive is None:
            raise ValueError("rule share needs a class; set positive")
        return self


class EvaluateConfig(Section):
    """Metrics on the test split, their slices, and the thresholds for a blessing."""

    metrics: list[str] | None = Field(None, description="names, as in docs/evaluation.md; all that fit the data if not given")
    slices: list[Annotated[list[str], AfterValidator(_one_or_two)]] = Field(
        [["image/label"]], description="features, or pairs of features, to slice by; meta/ and image/ as ingested"
    )
    buckets: dict[str, list[float]] = Field(
        {}, description="of features that are numbers, the edges between their slices; quartiles if not given"
    )
    min_slice_size: Count = Field(10, description="images that a slice needs to be measured")
    confidence_intervals: IntervalMethod = Field(
        "jackknife", description="how the 95 % intervals are computed, by leaving out or drawing whole groups"
    )
    groups: GroupsConfig = Field(GroupsConfig(), description="how groups are answered, where the data has any")
    max_shortcut: Annotated[float, Field(gt=0.5, le=1)] = Field(
        0.75, description="balanced accuracy by a property of the file alone from which there is a warning"
    )
    batch_size: Count = Field(256, description="images per step")
    thresholds: Annotated[list[ThresholdConfig], Field(min_length=1)] | None = Field(
        None,
        description="all must hold for a blessing; if not given, the model must be better than always the most frequent class, "
        "and not significantly worse than the served model",
    )


class LabelsConfig(Section):
    """A search for labels that are probably wrong, in all splits; it stops nothing."""

    enabled: bool = Field(False, description="look for wrong labels in all splits, with the trained model; see docs/labels.md")
    folds: Annotated[int, Field(ge=2)] = Field(
        5, description="of the cross-validation; classes with images of fewer groups are left out"
    )


class CardConfig(Section):
    """What the model card says, but no program can know."""

    intended_use: str = Field("", description="what the model is for, and for whom")
    out_of_scope: str = Field("", description="what it must not be used for")
    data: str = Field("", description="where the images come from, who labelled them, and how")
    limits: str = Field("", description="known limits and risks")
    license: str = Field("", description="of model and data")
    contact: str = Field("", description="who answers questions")


class CheckConfig(Section):
    """A check of the exported model before it is pushed: it is called as a server would call it."""

    enabled: bool = Field(True, description="check the exported model before it is pushed; one that fails is not pushed")
    images: Count = Field(64, description="test images that it is asked about")
    max_difference: Positive | None = Field(
        None,
        description="largest difference between a probability and the Evaluator's; 1e-5, or 0.02 with train.mixed_precision, "
        "if not given",
    )
    max_load_seconds: Positive | None = Field(None, description="time that loading may take")
    max_latency_ms: Positive | None = Field(None, description="time in which 99 of 100 requests of one image must be answered")
    max_memory_mb: Positive | None = Field(None, description="10^6 bytes that the process may take, TensorFlow included")
    timeout_seconds: Positive = Field(600.0, description="time after which the check is stopped and failed")
