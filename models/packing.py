"""Converts records to JSON and back, because TFX passes settings to a component only as text.

A record is a frozen dataclass whose fields may be other records, tuples, dicts, literals and unions.
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
    """A record as JSON; the same values give the same text, because the cache compares it."""
    return json.dumps(dataclasses.asdict(record), sort_keys=True)


def as_dict(record: "DataclassInstance") -> dict[str, Any]:
    """A record and the records in it as JSON's types: dicts, lists, text and numbers."""
    return json.loads(json.dumps(dataclasses.asdict(record)))


def unpack(kind: type[Record], packed: str | Mapping[str, Any]) -> Record:
    """Makes a record from the result of `pack` or `as_dict`, or from a mapping with its fields and perhaps others.

    Raises:
      ValueError: a field is missing, or has another type.
    """
    adapter = _adapter(kind)
    return adapter.validate_json(packed) if isinstance(packed, str) else adapter.validate_python(packed)


@cache
def _adapter(kind: type[Record]) -> TypeAdapter[Record]:
    return TypeAdapter(kind)
