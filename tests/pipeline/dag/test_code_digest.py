"""Which changes of code make a step run again."""

import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.config.whole import Config
from pipeline.dag import code_digest as module
from pipeline.dag.code_digest import code_digest
from pipeline.dag.component_settings import trainer_settings

REPOSITORY = Path(__file__).parents[3]
PACKAGE = "throwaway_package"
FILES = {
    "__init__.py": "",
    "step.py": f"import json\nfrom {PACKAGE} import direct\nfrom {PACKAGE}.names import VALUE\nimport {PACKAGE}.plain\n",
    "direct.py": f"def later():\n    from {PACKAGE}.sub.indirect import thing\n    return thing\n",
    "names.py": "VALUE = 1\n",
    "plain.py": f"import {PACKAGE}.step\n",
    "unrelated.py": f"from {PACKAGE} import step\n",
    "sub/__init__.py": "",
    "sub/indirect.py": "thing = 1\n",
    "sub/unrelated.py": "",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for path, text in FILES.items():
        file = tmp_path / PACKAGE / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "PACKAGES", (PACKAGE,))
    importlib.invalidate_caches()
    yield tmp_path / PACKAGE
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]


def test_the_digest_is_stable(package: Path) -> None:
    first = code_digest(f"{PACKAGE}.step")
    assert first == code_digest(f"{PACKAGE}.step")
    assert len(first) == 64


def test_the_digest_does_not_depend_on_the_files_times_or_place(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = code_digest(f"{PACKAGE}.step")
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]
    (tmp_path / "other").mkdir()
    shutil.copytree(package, tmp_path / "other" / PACKAGE, copy_function=shutil.copyfile)
    shutil.rmtree(package)
    monkeypatch.syspath_prepend(tmp_path / "other")
    assert code_digest(f"{PACKAGE}.step") == first


@pytest.mark.parametrize("path", ["step.py", "direct.py", "names.py", "plain.py", "sub/indirect.py", "__init__.py"])
def test_the_digest_changes_with_every_module_that_is_used(path: str, package: Path) -> None:
    first = code_digest(f"{PACKAGE}.step")
    (package / path).write_text((package / path).read_text() + "# changed\n")
    assert code_digest(f"{PACKAGE}.step") != first


@pytest.mark.parametrize("path", ["unrelated.py", "sub/unrelated.py", "new.py"])
def test_the_digest_does_not_change_with_a_module_that_is_not_used(path: str, package: Path) -> None:
    first = code_digest(f"{PACKAGE}.step")
    (package / path).write_text("changed = True\n")
    importlib.invalidate_caches()
    assert code_digest(f"{PACKAGE}.step") == first


def test_moving_code_between_modules_changes_the_digest(package: Path) -> None:
    first = code_digest(f"{PACKAGE}.step")
    (package / "direct.py").write_text(FILES["names.py"])
    (package / "names.py").write_text(FILES["direct.py"])
    assert code_digest(f"{PACKAGE}.step") != first


def test_other_packages_are_left_out(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = code_digest(f"{PACKAGE}.step")
    monkeypatch.setattr(module, "PACKAGES", (PACKAGE, "json"))
    assert code_digest(f"{PACKAGE}.step") != first


@pytest.fixture
def digest_of_copy(tmp_path: Path) -> Callable[[str], str]:
    for name in ("base", "models", "storage", "images", "evaluation", "components", "pipeline"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))

    def digest(name: str) -> str:
        code = f"from pipeline.dag import code_digest as c; print(c.__file__, c.code_digest({name!r}))"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        file, value = done.stdout.split()
        assert Path(file).is_relative_to(tmp_path)
        return value

    return digest


def test_preprocessing_does_not_depend_on_the_network(tmp_path: Path, digest_of_copy: Callable[[str], str]) -> None:
    first = digest_of_copy("models.preprocessing")
    assert first == code_digest("models.preprocessing")
    with (tmp_path / "models/fpn.py").open("a") as file:
        file.write("# changed\n")
    assert digest_of_copy("models.preprocessing") == first
    with (tmp_path / "models/features.py").open("a") as file:
        file.write("# changed\n")
    assert digest_of_copy("models.preprocessing") != first


def test_ingestion_depends_on_the_decoding_of_images(tmp_path: Path, digest_of_copy: Callable[[str], str]) -> None:
    first = digest_of_copy("components.image_example_gen.component")
    with (tmp_path / "images/files/decoding.py").open("a") as file:
        file.write("# changed\n")
    assert digest_of_copy("components.image_example_gen.component") != first


@pytest.mark.parametrize("model", [{"backbone": "hub:{}", "weights": "preset"}, {"backbone": "resnet50", "weights": "{}/w.h5"}])
def test_weights_that_have_changed_on_this_machine_train_again(model, tmp_path):
    config = Config.model_validate(
        {"name": "x", "data": {"path": "."}, "model": {key: value.format(tmp_path) for key, value in model.items()}}
    )
    codes = [trainer_settings(config, checkpoints="").code]  # the file is elsewhere, as for a compiled pipeline
    for content in ("one", "two"):
        (tmp_path / "w.h5").write_text(content)
        codes += [trainer_settings(config, checkpoints="").code, trainer_settings(config, checkpoints="").code]
    assert codes[1] == codes[2]
    assert codes[3] == codes[4]
    assert len(set(codes)) == 3
