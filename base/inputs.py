"""Opens files that people name, and reads text and JSON, within limits: nothing waits, and nothing fills the memory.

What is no regular file (a folder, a pipe, a device, a socket) is refused before it is opened. The limits stand here.
"""

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

from base.errors import UserError

MAX_CONFIG_BYTES: Final = 4 * 2**20  # of a configuration
MAX_RECORD_BYTES: Final = 64 * 2**20  # of a compiled pipeline, or of a JSON file of an earlier run or a prepared data set
MAX_DEPTH: Final = 50  # of YAML and JSON: of lists and mappings in each other
MAX_NODES: Final = 400_000  # of YAML: values, each as often as it is referred to
MAX_DIGITS: Final = 80  # of an integer, in any base; more than 64 bits have
_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: str | Path) -> BinaryIO:
    """Opens a local file for reading.

    Raises:
      OSError: it can't be opened, or is no regular file; `strerror` says so.
    """
    _require_regular(path, os.stat(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # NONBLOCK: it may have become a pipe since
    try:
        _require_regular(path, os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return open(descriptor, "rb")


def check_regular(path: str | Path, name: str) -> None:
    """Checks that a file is there and is a regular file.

    Args:
      path: a local path.
      name: the key or option that gives it, for the message.

    Raises:
      UserError: it is not.
    """
    try:
        open_regular(path).close()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise UserError(f"{name}: {path}: {getattr(error, 'strerror', None) or error}; give a file") from error


def read_text(path: str | Path, most: int, cure: str) -> str:
    """Reads a local UTF-8 file.

    Args:
      path: the file.
      most: largest number of bytes that it may have.
      cure: the end of a message, such as "save it as UTF-8 YAML".

    Raises:
      UserError: it can't be read, is no regular file, has more bytes, or is not UTF-8.
    """
    try:
        with open_regular(path) as file:
            content = file.read(most + 1)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > most:
        raise UserError(f"{path}: is larger than {most / 2**20:g} MiB; {cure}")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text; {cure}") from error


def read_json(path: str | Path, cure: str) -> dict[str, Any]:
    """Reads a local JSON file that holds an object.

    Args:
      path: the file.
      cure: the end of a message, such as "run again".

    Raises:
      UserError: it can't be read, or is no such file.
    """
    return parse_json_object(read_text(path, MAX_RECORD_BYTES, cure), str(path), cure)


def parse_json_object(text: str | bytes, name: str, cure: str) -> dict[str, Any]:
    """Reads a JSON text that holds an object.

    Args:
      text: the text.
      name: of the text, for messages.
      cure: as for `read_json`.

    Raises:
      UserError: the text is not JSON, is no object, is nested too deeply, or has an integer of too many digits.
    """
    content = parse_json(text, name, cure)
    if not isinstance(content, dict):
        raise UserError(f"{name}: holds no JSON object; {cure}")
    return content


def parse_json(text: str | bytes, name: str, cure: str, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Reads a JSON text as `parse_json_object`, with any value; `hook` may put another value in the place of each object."""
    try:
        return json.loads(text, parse_int=_parse_int, object_hook=hook)
    except RecursionError as error:
        raise UserError(f"{name}: is nested too deeply; {cure}") from error
    except ValueError as error:
        raise UserError(f"{name}: not JSON ({error}); {cure}") from error


def _parse_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _require_regular(path: str | Path, found: os.stat_result) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"not a regular file, but {_KINDS.get(kind, 'something else')}", str(path))
