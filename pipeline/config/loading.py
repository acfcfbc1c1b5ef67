"""Reads configurations from YAML files and the command line, and writes them."""

import hashlib
import typing
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from base.errors import UserError, shorten
from base.inputs import MAX_CONFIG_BYTES, MAX_DEPTH, read_text
from base.yaml_text import parse_yaml
from pipeline.config.messages import MOVED, explain
from pipeline.config.whole import Config

_CURE: typing.Final = "save it as UTF-8 YAML of some kilobytes"


def load_config(
    path: Path | None, data: str | None = None, overrides: typing.Sequence[str] = (), *, recorded: bool = False
) -> Config:
    """Reads a configuration file.

    Args:
      path: a YAML file; None for the defaults, if `data` is given.
      data: replaces `data.path`; a built-in data set (`data.sample`) is then not used.
      overrides: texts "section.key=value" with the value in YAML; later ones win.
      recorded: whether a run has written the file, perhaps of an earlier release: keys that have moved are not told, but read.

    Raises:
      UserError: the file can't be read, a key is unknown, a value does not fit, or `data` and `overrides` both name the data.
    """
    content = parse_yaml(read_text(path, MAX_CONFIG_BYTES, _CURE), str(path)) if path else {"name": "unnamed"}
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold sections such as `data:` and `model:`")
    if recorded:
        _move(content)
    for override in overrides:
        if data is not None and override.partition("=")[0] in ("data.path", "data.sample"):
            raise UserError(f"--set {override}: {data} is given as the data; leave one of them out")
        _apply(override, content)
    if data is not None:
        section = content["data"] = content.get("data") or {}
        if isinstance(section, dict):
            section["path"] = data
            section.pop("sample", None)
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        place = path or "--set"
        # A default that depends on another key says nothing where that key is wrong.
        details = [detail for detail in error.errors() if detail["type"] != "default_factory_not_called"]
        raise UserError("\n".join(f"{place}: {explain(detail, Config)}" for detail in details[:2])) from error


def dump_config(config: Config) -> str:
    """The whole configuration with all defaults, as YAML text; `load_config` reads it as the same configuration."""
    return yaml.safe_dump(config.content(), sort_keys=False, allow_unicode=True, width=120)


def config_digest(config: Config) -> str:
    """SHA-256 of a configuration with all defaults, hexadecimal."""
    return hashlib.sha256(dump_config(config).encode()).hexdigest()


def _move(content: dict[str, Any]) -> None:
    for old, new in MOVED.items():
        (section, key), (other, name) = old.split("."), new.split(".")
        if key in content.get(section, {}):
            content.setdefault(other, {})[name] = content[section].pop(key)


def _apply(override: str, content: dict[str, Any]) -> None:
    keys, equals, value = override.partition("=")
    if not equals or not keys:
        raise UserError(f"--set {override}: write it as section.key=value")
    *parents, last = keys.split(".")
    if len(parents) > MAX_DEPTH:
        raise UserError(f"--set: a key of {len(parents) + 1} parts; write section.key=value")
    section = content
    for parent in parents:
        if section.get(parent) is None:
            section[parent] = {}
        section = section[parent]
        if not isinstance(section, dict):
            raise UserError(f"--set {override}: {parent} is a value, not a section")
    name = f"--set {keys}"
    try:
        section[last] = parse_yaml(value, name)
    except UserError as error:
        if not str(error).startswith(f"{name}: not YAML"):
            raise  # a limit, whose message does not hold the value
        shown = keys if keys == "metadata" else shorten(override)  # the value may hold a password
        raise UserError(f"--set {shown}: the value is not YAML") from error
