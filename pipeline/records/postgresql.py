"""ML Metadata on PostgreSQL, corrected where it differs from ML Metadata on a file.

- Its client writes wrong SQL for every text that has a backslash, such as JSON inside JSON.
- PostgreSQL returns rows in any order; SQLite and MySQL return them in the order of their ids. TFX relies on the latter: it
  pairs the outputs of a cached execution with their names by position, and would take a Transform graph for examples.
"""

from collections.abc import Callable
from typing import Any, Final

import ml_metadata as mlmd
from google.protobuf import message
from google.protobuf.descriptor import FieldDescriptor

_BACKSLASH: Final = "\\"
_STAND_IN: Final = "\uf05c"  # from Unicode's private use area
_BY_ID: Final = [kind.DESCRIPTOR for kind in (mlmd.proto.Artifact, mlmd.proto.Execution, mlmd.proto.Context)]


class PostgresqlStore(mlmd.MetadataStore):
    """Behaves as a store on SQLite; in the database, `_STAND_IN` replaces each backslash."""

    def _call(self, method_name: str, request: message.Message, response: message.Message, extra_options: Any = None) -> None:
        _replace(request, lambda text: text.replace(_BACKSLASH, _STAND_IN))
        super()._call(method_name, request, response, extra_options)
        _replace(response, lambda text: text.replace(_STAND_IN, _BACKSLASH))
        if "options" not in request.DESCRIPTOR.fields_by_name or not request.HasField("options"):  # these may name an order
            for descriptor, items in response.ListFields():
                if descriptor.is_repeated and descriptor.message_type in _BY_ID:
                    items.sort(key=lambda item: item.id)


def _replace(content: message.Message, change: Callable[[str], str]) -> None:
    """Changes all texts of a message in place, except the names of properties."""
    for descriptor, value in content.ListFields():
        entries = descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry
        if descriptor.type == FieldDescriptor.TYPE_STRING:
            if not descriptor.is_repeated:
                setattr(content, descriptor.name, change(value))
            else:
                value[:] = [change(item) for item in value]
        elif entries:
            for item in value.values():
                if isinstance(item, message.Message):
                    _replace(item, change)
        elif descriptor.type == FieldDescriptor.TYPE_MESSAGE:
            for item in value if descriptor.is_repeated else [value]:
                _replace(item, change)
