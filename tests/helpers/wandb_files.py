"""Reads what W&B keeps offline: its records, in a file in the format of LevelDB's log with a header of its own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HEADER = 7  # bytes: of the file; and of each piece: checksum (4), length (2), kind (1)
_BLOCK = 2**15  # bytes; no header of a piece crosses its end
_LAST = (1, 4)  # kinds: the whole record, its last piece


def records(folder: Path) -> Iterator[Any]:
    """The records of the one run that was kept below a folder."""
    from wandb.proto import wandb_internal_pb2

    [path] = folder.glob("**/offline-run-*/*.wandb")
    content, place, pieces = path.read_bytes(), _HEADER, b""
    while place + _HEADER <= len(content):
        if _BLOCK - place % _BLOCK < _HEADER:
            place += _BLOCK - place % _BLOCK
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        pieces += content[place + _HEADER : place + _HEADER + length]
        place += _HEADER + length
        if kind in _LAST:
            yield wandb_internal_pb2.Record.FromString(pieces)
            pieces = b""


def history(folder: Path) -> list[dict[str, Any]]:
    """What was logged, a row at a time, without W&B's own keys."""
    rows = [record.history for record in records(folder) if record.HasField("history")]
    named = [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row.item} for row in rows]
    return [{name: value for name, value in row.items() if not name.startswith("_")} for row in named]
