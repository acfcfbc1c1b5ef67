"""What the sections of the configuration have in common."""

import os.path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
WholeNumber = Annotated[int, Field(ge=0)]
HomePath = Annotated[str, AfterValidator(os.path.expanduser)]  # ~ stands for the home folder
Range = Annotated[list[float], Field(min_length=2, max_length=2)]


class Section(BaseModel):
    """Base of every section: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
