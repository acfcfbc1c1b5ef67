"""Records to JSON and back: how settings travel to where TFX starts a component, which takes text alone.

A record is a frozen dataclass, of which fields may be such records again, tuples, dicts, literals and unions.
"""

import dataclasses
import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")


def pack(record: "DataclassInstance") -> str:
    """A record as JSON, the same text for the same values: it is part of what the cache compares."""
    return json.dumps(dataclasses.asdict(record), sort_keys=True)


def as_dict(record: "DataclassInstance") -> dict[str, Any]:
    """A record, and those in it, as what JSON knows: dicts, lists, text and numbers."""
    return json.loads(json.dumps(dataclasses.asdict(record)))


def unpack(kind: type[Record], packed: str | Mapping[str, Any]) -> Record:
    """The record that `pack` or `as_dict` was given, or one of a mapping that has its fields among others.

    Raises:
      ValueError: a field is missing, or has another type.
    """
    adapter = _adapter(kind)
    return adapter.validate_json(packed) if isinstance(packed, str) else adapter.validate_python(packed)


@cache
def _adapter(kind: type[Record]) -> TypeAdapter[Record]:
    return TypeAdapter(kind)
