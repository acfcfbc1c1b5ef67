"""A digest of the project's code that a step uses: if the code has changed, the step runs instead of using the cache."""

import ast
import importlib.util
from pathlib import Path

from base.project_code import PACKAGES, digest_of


def code_digest(module: str) -> str:
    """SHA-256 over the source of a module and of all modules of this project that it imports, directly or not.

    Args:
      module: dotted name, such as "models.training".
    """
    sources: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in sources or name.split(".")[0] not in PACKAGES:
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
    return digest_of(sources)
