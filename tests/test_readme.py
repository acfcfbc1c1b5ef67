"""The README's table of the configuration is the configuration."""

import re
import typing
from pathlib import Path

import pytest
from pydantic import BaseModel

from pipeline.config import Config

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text()


def configuration(section=Config, prefix=""):
    """One table row a key: name, default, meaning."""
    for key, field in section.model_fields.items():
        name = prefix + (field.alias or key)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from configuration(field.annotation, name + ".")
            continue
        default = "required" if field.is_required() else "-" if field.default is None else f"`{yaml_of(field.default)}`"
        choices = next((item for item in (field.annotation, *typing.get_args(field.annotation)) if is_choice(item)), None)
        values = f" ({', '.join(map(str, typing.get_args(choices)))})" if choices else ""
        yield f"| `{name}` | {default} | {field.description}{values} |"


def is_choice(annotation):
    return typing.get_origin(annotation) is typing.Literal


def yaml_of(value):
    if isinstance(value, list):
        return f"[{', '.join(map(yaml_of, value))}]"
    if isinstance(value, BaseModel):
        return (
            "{"
            + ", ".join(
                f"{key}: {item:g}" if isinstance(item, float) else f"{key}: {item}"
                for key, item in value
                if item not in (None, {})
            )
            + "}"
        )
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("row", configuration(), ids=lambda row: row.split("`")[1])
def test_every_key_stands_in_the_table_with_its_default(row):
    assert row in README.splitlines()


def test_every_local_link_leads_somewhere():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (PROJECT / target).exists(), target
