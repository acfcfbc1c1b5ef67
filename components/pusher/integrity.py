"""Whether a version is as it was pushed: its record, its files' digests, its signature."""

from pathlib import Path
from typing import Final

from components.pusher.model_files import CHUNK, GRAPH, digest_files, exists, files_of, list_files, read_file
from components.pusher.record import CHECKSUM_FILE, OLD_RECORD_FILE, RECORD_FILE, Record, checksum_line, parse_record
from components.pusher.signing import signature_problem

_LARGEST_RECORD: Final = 1 << 24  # bytes


def find_problem(version: str, public_key: Path | None = None) -> str:
    """Compares the files of a version with its record.

    Args:
      version: folder of a SavedModel, local or a URI.
      public_key: PEM file; the version must then also be signed by this key, record or not, and be local.

    Returns:
      What is wrong, such as "its files are not those that were pushed: saved_model.pb has changed"; "" if nothing is, or if
      there is no record.
    """
    try:
        record = read_record(version)
        problem = _difference(version, record) if record else ""
    except ValueError as error:
        return str(error)
    except OSError as error:
        return f"its files can't be read ({error.strerror or error})"
    return problem or (signature_problem(version, public_key) if public_key else "")


def _difference(version: str, record: Record) -> str:
    """How the files of a version differ from those in its record; "" if they do not."""
    if not files_of(version).exists(f"{version}/{GRAPH}"):
        return f"{GRAPH} is missing"
    files = list_files(version)
    if not record.files:
        return "" if digest_files(files) == record.digest else "its files are not those that were pushed"
    wrong = [path for path in sorted(record.files.keys() | files) if files.get(path) != record.files.get(path)]
    if not wrong:
        return ""
    name = wrong[0] if wrong[0].isprintable() else ascii(wrong[0])
    what = "is missing" if wrong[0] not in files else "has changed" if wrong[0] in record.files else "was added"
    more = f", and {len(wrong) - 1} more" if wrong[1:] else ""
    return f"its files are not those that were pushed: {name} {what}{more}"


def read_record(version: str) -> Record | None:
    """The record in the folder of a version; None if there is none.

    Raises:
      ValueError: it can't be read; the text says why.
    """
    pair = [name for name in (RECORD_FILE, CHECKSUM_FILE) if exists(f"{version}/{name}")]
    if len(pair) == 1:
        raise ValueError(f"{RECORD_FILE if pair == [CHECKSUM_FILE] else CHECKSUM_FILE} is missing")
    name = RECORD_FILE if pair else OLD_RECORD_FILE
    if not pair and not exists(f"{version}/{name}"):
        return None
    try:
        content = read_file(f"{version}/{name}", _LARGEST_RECORD)
        if name == RECORD_FILE and read_file(f"{version}/{CHECKSUM_FILE}", CHUNK) != checksum_line(content):
            raise ValueError(f"its SHA-256 is not the one in {CHECKSUM_FILE}")
        return parse_record(content)
    except ValueError as error:
        raise ValueError(f"{name} can't be read: {error}") from error
    except OSError as error:
        raise ValueError(f"{name} can't be read: {error.strerror or error}") from error


def digest_of(model: str) -> str:
    """The digest in a SavedModel's record; without a record that of its files, see `model_digest`.

    Args:
      model: folder of the SavedModel, local or a URI.

    Raises:
      ValueError: the record can't be read.
    """
    record = read_record(model)
    return record.digest if record else model_digest(model)


def model_digest(model: str) -> str:
    """SHA-256 over the names and contents of a SavedModel's files, hexadecimal. Copies of a version have the same digest.

    Args:
      model: folder of the SavedModel, local or a URI.
    """
    return digest_files(list_files(model))
