"""What the exported model says of its own answers; all of it is fitted on the eval split."""

from typing import Annotated

from pydantic import Field

from models.choices import SetMethod
from pipeline.config.section import Section

Inner = Annotated[float, Field(gt=0, lt=1)]


class SetsConfig(Section):
    """Sets of classes that hold the true one with a promised probability."""

    coverage: Inner = Field(0.95, description="probability that the set holds the true class")
    method: SetMethod = Field("lac", description="score of a class, by which it comes into the set; see docs/guarantees.md")
    by_class: bool = Field(False, description="whether the promise is for each class by itself")


class AbstainConfig(Section):
    """When the model rather does not answer."""

    risk: Inner = Field(description="largest share of wrong answers among those that are given")
    confidence: Inner = Field(0.95, description="probability with which the eval split must show that the risk is kept")


class UnusualConfig(Section):
    """How unusual an image is: the output `unusual` of the exported model."""

    cutoff: Annotated[float, Field(gt=0, lt=100)] | None = Field(
        None, description="percentile above which the answer is `unknown`; null: no answer is"
    )


class CalibrateConfig(Section):
    """How sure the model is, and what it promises."""

    temperature: bool = Field(True, description="fit a temperature on the eval split, exported with the model")
    sets: SetsConfig | None = Field(
        None,
        description="{coverage: 0.95, method: lac, aps or raps, by_class: false}: give a set of classes that holds the true "
        "one with this probability; no set if not given; see docs/guarantees.md",
    )
    abstain: AbstainConfig | None = Field(
        None,
        description="{risk: share, confidence: 0.95}: answer `unknown` where the model is not sure enough to keep this share "
        "of wrong answers; see docs/guarantees.md",
    )
    unusual: UnusualConfig | None = Field(
        UnusualConfig(),
        description="{cutoff: percentile}: tell how unusual an image is, as the percentile of its distance from the training "
        "images among the eval split's, and answer `unknown` above the cut-off; null: do not; see docs/unusual.md",
    )
