"""What is wrong with a configuration, one line per mistake."""

import difflib
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from base.errors import shorten

MOVED: typing.Final = {"train.calibrate": "calibrate.temperature"}  # section.key of earlier releases -> what it is now


def explain(detail: Any, section: type[BaseModel], within: str = "") -> str:
    """One line that says what is wrong with a key, and how to correct it.

    Args:
      detail: one of pydantic's errors.
      section: the section that was validated.
      within: the key that holds this section; "" for the whole configuration.
    """
    keys = [str(key) for key in detail["loc"]]
    shown = [within, *keys] if within else keys
    name = ".".join(shown)
    if name in MOVED:
        return f"{name}: is now {MOVED[name]}"
    if detail["type"] == "extra_forbidden":
        known = _keys_of(_section_at(keys[:-1], section))
        near = difflib.get_close_matches(keys[-1], known, n=1)
        hint = f"did you mean {'.'.join([*shown[:-1], near[0]])}?" if near else f"known keys: {', '.join(known)}"
        return f"{name}: unknown key; {hint}"
    if detail["type"] == "missing":
        return f"{name}: is missing"
    message = detail["msg"].removeprefix("Value error, ")
    if not name:
        return message
    message = message[0].lower() + message[1:]
    if detail["type"] == "model_type":
        message = f"must be a section with keys such as {_keys_of(_section_at(keys, section))[0]}"
    if detail["type"] == "too_short" and not detail["input"]:
        message = "needs one item or more (leave the key out for its default)"
    hidden = name == "metadata" or isinstance(detail["input"], dict | BaseModel)  # the value may hold a password
    return f"{name}: {message}" + ("" if hidden else f", is {shorten(repr(detail['input']), 200)}")


def _keys_of(section: type[BaseModel]) -> list[str]:
    return [field.alias or key for key, field in section.model_fields.items()]


def _section_at(keys: list[str], section: type[BaseModel]) -> type[BaseModel]:
    for key in keys:
        if key not in section.model_fields:  # a position in a list, or a name in a mapping
            continue
        section = next(_sections_in(section.model_fields[key].annotation))
    return section


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a type names, such as that of `list[ThresholdConfig] | None`."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias) and issubclass(annotation, BaseModel):
        yield annotation
    for item in typing.get_args(annotation):
        yield from _sections_in(item)
