"""A digest of the project's code, to tell whether the same code runs in two places."""

import hashlib
from pathlib import Path
from typing import Final

PACKAGES: Final = ("base", "models", "storage", "images", "evaluation", "components", "pipeline")


def project_digest() -> str:
    """SHA-256 over the source of all the project's packages."""
    root = Path(__file__).parents[1]
    return digest_of(
        {str(path.relative_to(root)): path.read_bytes() for package in PACKAGES for path in (root / package).rglob("*.py")}
    )


def digest_of(sources: dict[str, bytes]) -> str:
    """SHA-256 over files by name."""
    digest = hashlib.sha256()
    for name in sorted(sources):
        digest.update(f"{name}\0{len(sources[name])}\0".encode() + sources[name])
    return digest.hexdigest()
