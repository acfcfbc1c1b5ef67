"""Recipes: how a network learns, in a few lines over the defaults; one YAML file each in the folder recipes."""

import importlib.resources
from typing import Any, Literal

from base.yaml_text import parse_yaml

RecipeName = Literal["probe", "finetune", "finetune_long", "scratch"]


def read_recipe(name: RecipeName) -> tuple[str, dict[str, dict[str, Any]]]:
    """What a recipe does, in one sentence, and the sections of a configuration that do it."""
    text = (importlib.resources.files("pipeline.local") / "recipes" / f"{name}.yaml").read_text()
    return text.splitlines()[0].removeprefix("# "), parse_yaml(text, name)
