"""The record of a pushed version, `manifest.json` in its folder: where the version comes from, and what its files are.

Beside it lies its SHA-256, as `sha256sum` writes it, so that damage to the record is seen, too. A copy of a version shares
both files with it. Versions of earlier releases have `assets.extra/push.json`, a record without the list of files.
"""

import datetime
import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

RECORD_FILE: Final = "manifest.json"
CHECKSUM_FILE: Final = "manifest.json.sha256"
OLD_RECORD_FILE: Final = "assets.extra/push.json"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_TEXTS: Final = ("time", "digest", "pipeline", "run", "run_folder", "data", "code", "configuration")


@dataclass(frozen=True)
class Record:
    """The origin of a version.

    Attributes:
      time: time of the push, UTC, as 2026-01-01T12:00:00+00:00.
      digest: SHA-256 over the names and contents of the model's files.
      pipeline: name of the pipeline.
      run: id of the run.
      run_folder: folder of the run, with `config.yaml` and `report.html`; empty if runs have no folder.
      data: fingerprint of the data.
      code: SHA-256 of the project's code.
      configuration: SHA-256 of the configuration, with all defaults.
      versions: of the packages that made the model, by name.
      classes: names of the classes; empty in records of earlier releases.
      metrics: metrics on all test images, by name: {"value", "lower", "upper"}, with the bounds of the 95 % interval or None.
        A value that isn't defined, such as an AUC of one class, is NaN.
      files: the model's files by path: {"sha256", "size"}, hexadecimal and in bytes; empty in records of earlier releases.
      copy_of: after a rollback, the earlier version of which this is a copy; else None. A copy has the same record, so it is
        found by comparing them.
    """

    time: str = ""
    digest: str = ""
    pipeline: str = ""
    run: str = ""
    run_folder: str = ""
    data: str = ""
    code: str = ""
    configuration: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    copy_of: int | None = None


def format_record(record: Record) -> bytes:
    """The record as JSON, as `parse_record` reads it, without `copy_of`."""
    content = {name: value for name, value in asdict(record).items() if name != "copy_of"}
    return (json.dumps(content, indent=2) + "\n").encode()


def checksum_line(content: bytes) -> bytes:
    """The content of `CHECKSUM_FILE` for that of `RECORD_FILE`."""
    return f"{hashlib.sha256(content).hexdigest()}  {RECORD_FILE}\n".encode()


def parse_record(content: bytes) -> Record:
    """Reads a record. Keys that this release does not know are left out, as a later release may have written them.

    Args:
      content: JSON, in UTF-8.

    Raises:
      ValueError: this is no whole record; the text says why.
    """
    try:
        found = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError("no JSON") from error
    if not isinstance(found, dict):
        raise ValueError("no object in JSON")
    known = {item.name: found[item.name] for item in fields(Record) if item.name in found}
    wrong = [name for name, value in known.items() if not _is_valid(name, value)]
    wrong += [name for name in ("time", "digest") if name not in known]
    if wrong:
        raise ValueError(f"{wrong[0]} is missing or wrong")
    return Record(**known)


def _is_valid(name: str, value: Any) -> bool:
    if name == "classes":
        return isinstance(value, list) and all(map(_is_text, value))
    if name in _DICTIONARIES:
        return isinstance(value, dict) and all(_is_text(key) and _DICTIONARIES[name](item) for key, item in value.items())
    if name == "copy_of":
        return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**18)
    assert name in _TEXTS
    if not _is_text(value):
        return False
    return _is_time(value) if name == "time" else name != "digest" or bool(_DIGEST.fullmatch(value))


def _is_metric(value: Any) -> bool:
    if not isinstance(value, dict) or not {"value", "lower", "upper"} <= value.keys():
        return False
    numbers = (value["value"], *(bound for bound in (value["lower"], value["upper"]) if bound is not None))
    return all(isinstance(number, float) or (type(number) is int and abs(number) < 10**300) for number in numbers)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _is_file(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_text(value.get("sha256"))
        and bool(_DIGEST.fullmatch(value["sha256"]))
        and type(value.get("size")) is int
        and value["size"] >= 0
    )


def _is_time(value: str) -> bool:
    try:
        datetime.datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


_DICTIONARIES: Final = {"metrics": _is_metric, "versions": _is_text, "files": _is_file}  # what their values must be
