"""Configurations that load, and what is said of those that do not."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.errors import UserError
from pipeline.config import load_config

REPOSITORY = Path(__file__).parents[2]
MINIMAL = {"name": "test", "data": {"path": "images"}}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(content: Any = None, **sections: Any) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump((content or MINIMAL) | sections))
        return path

    return write


def user_error(path: Path, data: str | None = None, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(UserError) as caught:
        load_config(path, data, overrides)
    text = str(caught.value)
    assert 1 <= len(text.splitlines()) <= 2
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_configurations_of_the_repository_load(path: Path) -> None:
    assert load_config(path).name


def test_everything_but_name_and_data_has_a_default(write: Any) -> None:
    config = load_config(write())
    assert (config.name, config.data.path) == ("test", "images")
    assert config.data.splits.model_dump() == {"train": 8, "eval": 1, "test": 1}
    assert config.data.sample is None


def test_the_schema_key_is_read(write: Any) -> None:
    assert load_config(write(data={"path": "images", "schema": "my.pbtxt"})).data.schema_file == "my.pbtxt"


@pytest.mark.parametrize(
    ("sections", "key", "near"),
    [
        ({"modle": {}}, "modle", "model"),
        ({"image": {"heigth": 32}}, "image.heigth", "image.height"),
        ({"data": {"path": "x", "splits": {"trian": 3}}}, "data.splits.trian", "data.splits.train"),
        ({"data": {"path": "x", "schema_file": "y"}}, "data.schema_file", "data.schema"),
        (
            {"evaluate": {"thresholds": [{"metric": "accuracy", "lower": 0.5}, {"metric": "loss", "uper": 0.1, "change": 0}]}},
            "evaluate.thresholds.1.uper",
            "evaluate.thresholds.1.upper",
        ),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest_one(sections: dict[str, Any], key: str, near: str, write: Any) -> None:
    path = write(**sections)
    assert user_error(path) == f"{path}: {key}: unknown key; did you mean {near}?"


def test_an_unknown_key_like_no_other_is_told_with_all_known_ones(write: Any) -> None:
    assert "push.zzz: unknown key; known keys: path" in user_error(write(push={"zzz": 1}))


@pytest.mark.parametrize(
    ("sections", "key", "value"),
    [
        ({"image": {"height": "tall"}}, "image.height", "'tall'"),
        ({"image": {"height": 32.5}}, "image.height", "32.5"),
        ({"image": {"height": 0}}, "image.height", "0"),
        ({"image": {"antialias": "yes please"}}, "image.antialias", "'yes please'"),
        ({"model": {"backbone": "resnet"}}, "model.backbone", "'resnet'"),
        ({"data": {"path": 3}}, "data.path", "3"),
        ({"data": {"path": "x", "max_rejected": 1.5}}, "data.max_rejected", "1.5"),
        ({"train": [1]}, "train", "[1]"),
        ({"name": "No Spaces"}, "name", "'No Spaces'"),
        ({"evaluate": {"slices": ["image/label"]}}, "evaluate.slices.0", "'image/label'"),
        ({"evaluate": {"slices": [["a", "b", "c"]]}}, "evaluate.slices.0", "['a', 'b', 'c']"),
        ({"evaluate": {"thresholds": []}}, "evaluate.thresholds", "[]"),
    ],
)
def test_a_value_that_does_not_fit_is_told_with_its_key(sections: dict[str, Any], key: str, value: str, write: Any) -> None:
    path = write(**sections)
    text = user_error(path)
    assert text.startswith(f"{path}: {key}: ")
    assert text.endswith(f", is {value}")


def test_a_key_that_is_no_text_is_told(write: Any) -> None:
    assert "1: keys should be strings" in user_error(write("name: x\ndata: {path: y}\n1: 2\n"))


def test_a_missing_section_is_told(write: Any) -> None:
    assert user_error(write("name: test")).endswith(": data: is missing")


def test_two_lines_tell_the_first_two_of_many_mistakes(write: Any) -> None:
    text = user_error(write(image={"height": 0, "width": 0, "channels": 2}))
    assert [line.split(": ")[1] for line in text.splitlines()] == ["image.height", "image.width"]


def test_levels_in_the_wrong_order_are_told(write: Any) -> None:
    assert "min_level (5) must not be above max_level (3)" in user_error(write(model={"min_level": 5, "max_level": 3}))


def test_a_threshold_without_a_bound_is_told(write: Any) -> None:
    text = user_error(write(evaluate={"thresholds": [{"metric": "accuracy"}]}))
    assert "evaluate.thresholds.0: the threshold on accuracy needs lower, upper or change" in text


def test_a_threshold_on_two_slice_features_is_told(write: Any) -> None:
    thresholds = [{"metric": "accuracy", "lower": 0.5, "slice": {"meta/a": "1", "meta/b": "2"}}]
    assert "can name one slice feature, not 2" in user_error(write(evaluate={"thresholds": thresholds}))


@pytest.mark.parametrize("backbone", ["resnet50", "resnet101", "mobilenet_v2"])
def test_four_channels_need_a_backbone_of_our_own(backbone: str, write: Any) -> None:
    text = user_error(write(image={"channels": 4}, model={"backbone": backbone}))
    assert f"image.channels is 4, but model.backbone {backbone} takes 1 or 3" in text


def test_the_small_backbone_takes_four_channels(write: Any) -> None:
    assert load_config(write(image={"channels": 4}, model={"backbone": "small_resnet10"})).image.channels == 4


# Overrides


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("image.height=48", "image", "height", 48),
        ("image.antialias=false", "image", "antialias", False),
        ("data.max_rejected=0.5", "data", "max_rejected", 0.5),
        ("data.schema=a=b.pbtxt", "data", "schema_file", "a=b.pbtxt"),
        ("data.schema=null", "data", "schema_file", None),
        ("beam.options=[--direct_num_workers=4]", "beam", "options", ["--direct_num_workers=4"]),
        ("evaluate.slices=[[meta/size], [a, b]]", "evaluate", "slices", [["meta/size"], ["a", "b"]]),
        ("model.backbone=small_resnet10", "model", "backbone", "small_resnet10"),
    ],
)
def test_an_override_is_typed_by_yaml(override: str, section: str, key: str, value: Any, write: Any) -> None:
    config = load_config(write(), overrides=[override])
    assert getattr(getattr(config, section), key) == value


def test_an_override_reaches_the_top_and_nested_sections(write: Any) -> None:
    config = load_config(write(), overrides=["name=other", "data.splits.train=5", "data.columns.label=animal"])
    assert (config.name, config.data.splits.train, config.data.columns.label) == ("other", 5, "animal")
    assert config.data.path == "images"


def test_the_last_override_wins(write: Any) -> None:
    assert load_config(write(), overrides=["train.epochs=3", "train.epochs=4"]).train.epochs == 4


@pytest.mark.parametrize("value", ["1e-3", "1E-3", "0.001", "1.0e-3"])
def test_a_small_number_may_be_written_with_an_exponent(value: str, write: Any) -> None:
    assert load_config(write(), overrides=[f"train.learning_rate={value}"]).train.learning_rate == 0.001


@pytest.mark.parametrize("value", ["1e-3x", "e3", "1 000"])
def test_what_is_no_number_stays_text(value: str, write: Any) -> None:
    assert f"is '{value}'" in user_error(write(), overrides=(f"train.learning_rate={value}",))


def test_an_override_fills_a_section_that_the_file_leaves_empty(write: Any) -> None:
    path = write("name: test\ndata: {path: images}\nimage:\n")
    assert load_config(path, overrides=["image.height=48"]).image.height == 48


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("image.height", "--set image.height: write it as section.key=value"),
        ("=3", "--set =3: write it as section.key=value"),
        ("data.path.deep=3", "--set data.path.deep=3: path is a value, not a section"),
        ("image.height=[1", "--set image.height=[1: the value is not YAML"),
        ("image.heigth=3", "image.heigth: unknown key; did you mean image.height?"),
        ("image.height=tall", "image.height: input should be a valid integer"),
    ],
)
def test_a_bad_override_is_told(override: str, told: str, write: Any) -> None:
    assert told in user_error(write(), overrides=(override,))


# Data


def test_the_data_argument_replaces_the_path_and_drops_the_sample(write: Any) -> None:
    path = write(data={"path": "data/digits", "sample": "digits", "max_rejected": 0.5})
    assert load_config(path).data.sample == "digits"
    config = load_config(path, "elsewhere")
    assert (config.data.path, config.data.sample, config.data.max_rejected) == ("elsewhere", None, 0.5)


@pytest.mark.parametrize("content", ["name: test", "name: test\ndata:\n"])
def test_the_data_argument_can_stand_for_the_section(content: str, write: Any) -> None:
    assert load_config(write(content), "elsewhere").data.path == "elsewhere"


# Files


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    assert user_error(tmp_path / "absent.yaml") == f"{tmp_path / 'absent.yaml'}: No such file or directory"


def test_a_folder_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    assert str(tmp_path) in user_error(tmp_path)


@pytest.mark.parametrize("content", ["data: [", "name: x\n\tdata: y\n", "a: b: c", "name: !!python/object:os.system x"])
def test_a_file_that_is_not_yaml_is_told(content: str, write: Any) -> None:
    path = write(content)
    assert user_error(path).startswith(f"{path}: not YAML: ")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00n\x00a", b"\x89PNG\r\n\x1a\n\x00", "name: Hände".encode("latin-1")])
def test_a_file_that_is_not_utf_8_is_told(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    assert user_error(path).startswith(f"{path}: ")


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "just words"])
def test_a_file_without_sections_is_told(content: str, write: Any) -> None:
    assert "must hold sections such as" in user_error(write(content or "\n"))


# The command line


def test_importing_the_command_line_imports_no_tensorflow() -> None:
    code = "import sys, pipeline.cli; print({'tensorflow', 'tfx', 'keras', 'apache_beam'} & sys.modules.keys() or 'none')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "none"


def test_help_answers_at_once() -> None:
    durations = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([Path(sys.executable).with_name("fpn"), "--help"], capture_output=True, text=True, check=True)
        durations.append(time.perf_counter() - start)
        assert "predict" in done.stdout
    assert min(durations) < 0.5


def test_a_user_error_ends_the_command_with_one_message_and_status_2(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("fpn"), "run", "--config", tmp_path / "absent.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"fpn: {tmp_path / 'absent.yaml'}: No such file or directory\n"
    assert list(tmp_path.iterdir()) == []
