"""What the sections of the configuration have in common."""

import os.path
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
WholeNumber = Annotated[int, Field(ge=0)]
HomePath = Annotated[str, AfterValidator(os.path.expanduser)]  # ~ stands for the home folder
Range = Annotated[list[float], Field(min_length=2, max_length=2)]


def _seconds(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if not found or not text:
        raise ValueError("write a time as 90s, 20m or 1h30m")
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return 3600 * hours + 60 * minutes + seconds


Duration = Annotated[float, Field(gt=0, le=1e8), BeforeValidator(_seconds)]  # in seconds, up to three years


class Section(BaseModel):
    """Base of every section: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
