"""Data folders whose images nobody opens, and the settings to read them with."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from base.errors import UserError
from images.dataset import source
from images.settings import Columns, IngestionSettings, SpanShares, SplitShares
from pipeline.config.data import DataConfig
from pipeline.config.whole import Config
from pipeline.dag.component_settings import ingestion_settings

COLUMNS = {"path": "path", "label": "label", "group": "group", "split": "split", "types": {}}
SPLITS = {"train": 2, "eval": 1, "test": 1, "stratify": False}


def settings(**changes: Any) -> IngestionSettings:
    """The configuration's defaults, with as many images for eval and test as small data sets need."""
    sections = {
        "splits": SplitShares(**SPLITS | changes.pop("splits", {})),
        "spans": SpanShares(**spans) if (spans := changes.pop("spans", None)) else None,
        "columns": Columns(**COLUMNS | changes.pop("columns", {})),
    }
    return replace(ingestion_settings(Config(name="folders", data=DataConfig(path=""))), **sections, **changes)


def touch(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"not opened")


def image_paths(per_class: int = 40, prefix: str = "") -> list[str]:
    return [f"{prefix}{label}/{number:02d}.png" for label in ("cat", "dog") for number in range(per_class)]


def make_manifest(folder: Path, header: str, lines: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


def user_error(folder: Path | str, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        source.read_rows(str(folder), settings(**changes))
    text = str(caught.value)
    assert len(text.splitlines()) <= 2
    return text


def split_counts(rows: list[source.Row]) -> Counter[str]:
    return Counter(row.split for row in rows if not row.reason)


def reasons(rows: list[source.Row]) -> dict[str, str]:
    """Name -> reason of the rows that are set aside."""
    return {row.name: row.reason for row in rows if row.reason}
