"""Imports point one way, without a circle, and newcomers are told what each package is for."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PACKAGES = ("base", "models", "storage", "images", "evaluation", "components", "pipeline")


def lint_imports(project: Path) -> tuple[int, str]:
    """Exit status and output of import-linter on a copy of the packages, by the contracts in its pyproject.toml."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_imports_keep_to_the_contracts() -> None:
    status, output = lint_imports(PROJECT)
    assert status == 0, output


@pytest.mark.parametrize(
    ("path", "code", "contract"),
    [
        ("images/index.py", "from components.pusher import versions", "Packages import downwards"),
        ("models/fpn.py", "from base.errors import UserError", "models can be taken alone"),
        (
            "pipeline/records/runs.py",
            "def later():\n    import pipeline.terminal.tables",
            "Rooms of the pipeline import downwards",
        ),
        ("pipeline/another.py", "", "Rooms of the pipeline import downwards"),
        (
            "pipeline/records/store.py",
            "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from pipeline.records import runs",
            "Nothing imports in a circle",
        ),
        ("base/paths.py", "def later():\n    from tfx.dsl.io import fileio", "takes no TensorFlow"),
    ],
)
def test_breaches_are_noticed(tmp_path: Path, path: str, code: str, contract: str) -> None:
    for package in PACKAGES:
        shutil.copytree(PROJECT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    with (tmp_path / path).open("a") as file:
        file.write(f"\n\n{code}\n")
    status, output = lint_imports(tmp_path)
    (line,) = [line for line in output.splitlines() if contract in line and ("KEPT" in line or "BROKEN" in line)]
    assert (status, line.rpartition(" ")[2]) == (1, "BROKEN"), output


def test_the_pipeline_folder_can_be_taken_in_at_a_glance() -> None:
    assert len([path for path in (PROJECT / "pipeline").iterdir() if path.name != "__pycache__"]) <= 14


def test_every_package_says_in_a_line_what_it_is_for() -> None:
    folders = {path.parent for package in PACKAGES for path in (PROJECT / package).rglob("*.py")}
    for folder in sorted(folders):
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        assert text, folder
        assert len(text.splitlines()) == 1, folder
