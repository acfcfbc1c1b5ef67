"""Reads YAML within the limits of `base.inputs`, and refuses keys that are given twice."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from base.errors import UserError
from base.inputs import MAX_DEPTH, MAX_DIGITS, MAX_NODES

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where it is installed


class _Loader(_Base):
    """Reads 1e-3 as a number, as YAML 1.2 does, and no integer that takes long to read."""

    def construct_yaml_int(self, node: yaml.Node) -> int:
        text = str(self.construct_scalar(node))
        if len(text) > MAX_DIGITS:
            raise yaml.constructor.ConstructorError(None, None, f"an integer of {len(text)} digits", node.start_mark)
        number = super().construct_yaml_int(node)
        if not -(2**63) <= number < 2**64:
            raise yaml.constructor.ConstructorError(None, None, "an integer beyond 64 bits", node.start_mark)
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


def parse_yaml(text: str, name: str) -> Any:
    """Reads a YAML text with one document or none.

    Args:
      text: the text.
      name: of the text, for messages.

    Raises:
      UserError: it is not YAML, has a key twice, is nested too deeply, or stands for too much.
    """
    documents = parse_documents(text, name)
    if len(documents) > 1:
        raise UserError(f"{name}: not YAML: has several documents; give one")
    return documents[0] if documents else None


def parse_documents(text: str, name: str) -> list[Any]:
    """Reads a YAML text with any number of documents.

    Args: and errors as for `parse_yaml`.
    """
    try:
        _check(yaml.parse(text, _Loader), name)
        return list(yaml.load_all(text, _Loader))
    except UserError:
        raise
    except yaml.YAMLError as error:
        raise UserError(f"{name}: not YAML: {' '.join(str(error).split())}") from error
    except Exception as error:  # a value that does not fit its tag, such as the date 2026-99-99: constructors check nothing
        raise UserError(f"{name}: not YAML: {' '.join(str(error).split())}") from error


class _Open:
    """A list or mapping whose end is not reached yet."""

    def __init__(self, event: yaml.CollectionStartEvent, before: int) -> None:
        self.anchor = event.anchor
        self.before = before  # values counted before it
        self.keys: dict[str, int] | None = {} if isinstance(event, yaml.MappingStartEvent) else None  # key -> line
        self.is_key = True  # whether a key of the mapping comes next


def _check(events: Iterator[yaml.Event], name: str) -> None:
    """Checks the structure before anything is made of it."""
    opened: list[_Open] = []
    sizes: dict[str, int] = {}  # anchor -> values that it stands for
    count = 0
    for event in events:
        if isinstance(event, yaml.CollectionEndEvent):
            ended = opened.pop()
            if ended.anchor:
                sizes[ended.anchor] = count - ended.before
            continue
        if not isinstance(event, yaml.NodeEvent):
            continue
        line = _line(event)
        if opened and opened[-1].keys is not None:
            _check_key(event, opened[-1], name)
        if isinstance(event, yaml.AliasEvent):
            if any(item.anchor == event.anchor for item in opened):
                raise UserError(f"{name}: line {line}: *{event.anchor} contains itself; write it without the alias")
            count += sizes.get(str(event.anchor), 0)
        else:
            if event.anchor:
                sizes[event.anchor] = 1
            if isinstance(event, yaml.CollectionStartEvent):
                opened.append(_Open(event, count))
            count += 1
        if len(opened) > MAX_DEPTH:
            raise UserError(f"{name}: line {line}: is nested too deeply; {MAX_DEPTH} levels are the most")
        if count > MAX_NODES:
            raise UserError(f"{name}: line {line}: stands for more than {MAX_NODES:,} values; write fewer, or fewer aliases")


def _check_key(event: yaml.NodeEvent, mapping: _Open, name: str) -> None:
    """Checks that a mapping has no key twice, if a key comes next."""
    assert mapping.keys is not None
    if mapping.is_key and isinstance(event, yaml.ScalarEvent):
        key, line = str(event.value), _line(event)
        if before := mapping.keys.get(key):
            where = f"the lines {before} and {line}" if before < line else f"line {line}"
            raise UserError(f"{name}: {key} is given twice, in {where}; make one of them")
        mapping.keys[key] = line
    mapping.is_key = not mapping.is_key


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0
