"""Opens tables in CSV, JSON Lines and Parquet files, and reads them within limits."""

import csv
import io
import itertools
import json
import math
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from base.errors import UserError
from base.inputs import parse_json_object
from images.dataset import listing
from images.dataset.columns import separator_of

SUFFIXES: Final = (".csv", ".tsv", ".jsonl", ".parquet")
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")  # as spreadsheets write "Unicode text"
_MAX_COLUMNS: Final = 10_000
_MAX_LINE: Final = 2**20  # characters
_MAX_ROWS: Final = 2**27  # of a Parquet file, a few bytes of which can stand for many rows
_MAX_TABLE_BYTES: Final = 2**34  # of a Parquet file, when its columns are decompressed
_ROWS: Final = 1024  # rows of a Parquet file that are read at a time


@dataclass(frozen=True)
class Table:
    """Header and lines of a manifest.

    Attributes:
      name: path of the file, for messages.
      columns: names of the columns.
      lines: pairs (number, one value per column). Values are text; from Parquet also int, float or None.
      unit: what the numbers count: "line", "row" or "image".
      kind: what it is if it was written by a labelling tool, see `imports`; "" for any other table.
    """

    name: str
    columns: list[str]
    lines: Iterator[tuple[int, list[Any]]]
    unit: str
    kind: str = ""


def open_table(folder: str, name: str) -> Table:
    """Opens a table; its lines are read as they are asked for.

    Args:
      folder: the data folder.
      name: path of the table in the folder, with one of `SUFFIXES`.

    Raises:
      UserError: it can't be read, or has too many columns, or too long lines. This may also come when lines are read.
    """
    path = listing.join(folder, name)
    file = _open(path)
    kinds = {".parquet": _open_parquet, ".jsonl": _open_json_lines}
    table = kinds.get(posixpath.splitext(name)[1].lower(), _open_csv)(path, file)
    if len(table.columns) > _MAX_COLUMNS:
        raise UserError(f"{path}: {len(table.columns):,} columns; {_MAX_COLUMNS:,} are the most")
    return table


def _open(path: str) -> BinaryIO:
    try:
        return listing.open_file(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error


def _open_csv(name: str, file: BinaryIO) -> Table:
    """Opens a CSV file, which is read line by line."""
    encoding = "utf-16" if file.read(2) in _UTF_16 else "utf-8-sig"
    file.seek(0)
    text = text_lines(name, file, "CSV", encoding)
    header = next(text, "")
    reader = csv.reader(itertools.chain([header], text), delimiter=separator_of(header))

    def lines() -> Iterator[tuple[int, list[Any]]]:
        while (values := _next_line(name, reader)) is not None:
            if not values:
                continue
            if len(values) != len(columns):
                raise UserError(
                    f"{name}: line {reader.line_num} needs one value for each of {len(columns)} columns, "
                    f"and has {len(values)}; mend or remove it"
                )
            yield reader.line_num, values

    columns = _next_line(name, reader) or []
    return Table(name, columns, lines(), "line")


def _next_line(name: str, reader: Any) -> list[str] | None:
    try:
        return next(reader, None)
    except csv.Error as error:
        line = max(reader.line_num, 1)
        raise UserError(f"{name}: line {line}: {error}; look for a quote that is not closed") from error


def text_lines(name: str, file: BinaryIO, kind: str, encoding: str = "utf-8-sig") -> Iterator[str]:
    """The lines of a text file with their ends; raises UserError if it is no such file, or has too long lines."""
    number = 1
    try:
        with file, io.TextIOWrapper(file, encoding=encoding, newline="") as text:
            while line := text.readline(_MAX_LINE + 1):
                if len(line) > _MAX_LINE:
                    raise UserError(f"{name}: line {number} has more than {_MAX_LINE:,} characters; is it a manifest?")
                yield line
                number += 1
    except UnicodeError as error:
        raise UserError(f"{name}: not UTF-8 text; save it as UTF-8 {kind}") from error
    except OSError as error:
        raise UserError(f"{name}: after line {number - 1}: can't be read ({error.strerror or error})") from error


def _open_json_lines(name: str, file: BinaryIO) -> Table:
    """Opens a JSON Lines file, which is read twice, line by line: first for the names and the kinds of its columns."""
    kinds: dict[str, set[type]] = {}
    for _, found in json_lines(name, file):
        for column, value in found.items():
            if value is not None:
                kinds.setdefault(column, set()).add(type(value))
            elif column not in kinds:
                kinds[column] = set()
        if len(kinds) > _MAX_COLUMNS:
            break  # `open_table` tells it

    def lines() -> Iterator[tuple[int, list[Any]]]:
        for number, found in json_lines(name, _open(name)):
            yield number, [_json_value(found.get(column), kinds[column]) for column in kinds]

    return Table(name, list(kinds), lines(), "line")


def json_lines(name: str, file: BinaryIO) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of each line; raises UserError if a line holds none."""
    for number, line in enumerate(text_lines(name, file, "JSON Lines"), 1):
        if line.isspace():
            continue
        found = parse_json_object(line, f"{name}: line {number}", "mend or remove it")
        if "\\ud" in line.lower() and not _is_unicode(found):
            raise UserError(f"{name}: line {number}: has half of a character (\\ud...); mend or remove it")
        yield number, found


def _is_unicode(found: dict[str, Any]) -> bool:
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _json_value(value: Any, kinds: set[type]) -> Any:
    """A number if all of its column's values are numbers, with NaN for a missing one; else text or None."""
    if kinds and kinds <= {int, float}:
        return math.nan if value is None else float(value) if float in kinds else value
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _open_parquet(name: str, file: BinaryIO) -> Table:
    """Opens a Parquet file, of which some rows at a time are read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        metadata = table.metadata
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{name}: no Parquet file that can be read ({error})") from error
    size = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    if metadata.num_rows > _MAX_ROWS or size > _MAX_TABLE_BYTES:
        raise UserError(f"{name}: {metadata.num_rows:,} rows of {size:,} bytes; is it a manifest?")

    def lines() -> Iterator[tuple[int, list[Any]]]:
        number = 0
        try:
            with file:
                for batch in table.iter_batches(batch_size=_ROWS):
                    for line in zip(*(_column_values(column) for column in batch.columns), strict=True):
                        number += 1
                        yield number, list(line)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{name}: after row {number}: can't be read ({error})") from error

    return Table(name, table.schema_arrow.names, lines(), "row")


def _column_values(column: Any) -> list[Any]:
    """The values of a column: numbers, with NaN for a missing one, or texts, or None."""
    import pyarrow as pa

    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return [math.nan if value is None else value for value in column.to_pylist()]
    try:
        return column.cast(pa.string()).to_pylist()
    except pa.ArrowException:  # lists, structures
        return [None if value is None else str(value) for value in column.to_pylist()]
