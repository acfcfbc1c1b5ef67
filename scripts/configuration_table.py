"""Writes docs/configuration.md: every key of the configuration with its default and meaning, from pipeline/config."""

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline.config.whole import Config

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
_HEAD = """# Configuration

There is one YAML file for each pipeline. An unknown key is an error that names the nearest key, and so is a wrong type.
`--set train.epochs=20` changes a value for one run. This table is made by `scripts/configuration_table.py` from
`pipeline/config`.

| key | default | meaning |
| --- | --- | --- |
"""


def rows(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """One table row a key: name, default, meaning with the choices."""
    for key, field in section.model_fields.items():
        name = prefix + (field.alias or key)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from rows(field.annotation, name + ".")
            continue
        is_open = field.default is None or field.default_factory
        default = "required" if field.is_required() else "-" if is_open else f"`{_yaml(field.default)}`"
        annotations = (field.annotation, *typing.get_args(field.annotation))
        choices = next((item for item in annotations if typing.get_origin(item) is typing.Literal), None)
        values = f" ({', '.join(map(str, typing.get_args(choices)))})" if choices else ""
        meaning = f"{field.description}{values}".replace("|", "\\|")  # which would end the cell, also between back-quotes
        yield f"| `{name}` | {default} | {meaning} |"


def page() -> str:
    """The whole page."""
    return _HEAD + "\n".join(rows()) + "\n"


def _yaml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, BaseModel):
        given = {key: item for key, item in value if item not in (None, {})}
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in given.items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
