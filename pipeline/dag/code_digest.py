"""A digest of the project's code that a step uses: if the code has changed, the step runs instead of using the cache."""

import ast
import hashlib
import importlib.util
from pathlib import Path

_PACKAGES = ("base", "models", "storage", "images", "evaluation", "components", "pipeline")


def code_digest(module: str) -> str:
    """SHA-256 over the source of a module and of all modules of this project that it imports, directly or not.

    Args:
      module: dotted name, such as "models.training".
    """
    sources: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in sources or name.split(".")[0] not in _PACKAGES:
            continue
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            spec = None
        if spec is None or spec.origin is None:
            continue  # not a module, but a name in one
        sources[name] = Path(spec.origin).read_bytes()
        for node in ast.walk(ast.parse(sources[name])):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return _digest(sources)


def project_digest() -> str:
    """SHA-256 over the source of all the project's packages, to tell whether the same code made two runs."""
    root = Path(__file__).parents[2]
    return _digest(
        {str(path.relative_to(root)): path.read_bytes() for package in _PACKAGES for path in (root / package).rglob("*.py")}
    )


def _digest(sources: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name in sorted(sources):
        digest.update(f"{name}\0{len(sources[name])}\0".encode() + sources[name])
    return digest.hexdigest()
