"""Configurations that load, and what is said of those that do not."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from base.errors import UserError
from models.settings import TileSettings
from pipeline.config.loading import dump_config, load_config
from pipeline.dag.component_settings import ingestion_settings, trainer_settings, transform_settings, tuner_settings

REPOSITORY = Path(__file__).parents[3]
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
    assert config.data.splits.model_dump() == {"train": 8, "eval": 1, "test": 1, "stratify": False}
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


def test_an_empty_list_is_told_with_its_cure(write: Any) -> None:
    text = user_error(write(), overrides=["evaluate.thresholds=[]"])
    assert text.endswith("evaluate.thresholds: needs one item or more (leave the key out for its default), is []")


def test_a_key_that_is_no_text_is_told(write: Any) -> None:
    assert "1: keys should be strings" in user_error(write("name: x\ndata: {path: y}\n1: 2\n"))


def test_a_missing_section_is_told(write: Any) -> None:
    assert user_error(write("name: test")).endswith(": data: is missing")


def test_two_lines_tell_the_first_two_of_many_mistakes(write: Any) -> None:
    text = user_error(write(image={"height": 0, "width": 0, "channels": 2}))
    assert [line.split(": ")[1] for line in text.splitlines()] == ["image.height", "image.width"]


@pytest.mark.parametrize(
    ("tiles", "told"),
    [
        ({"size": 64, "overlap": 64}, "image: tiles.overlap (64) must be below tiles.size (64)"),
        ({"size": 225}, "image: tiles.size (225) must not be above height (300) and width (224)"),
        ({"overlap": 3}, "image.tiles.size: is missing"),
        ({"sise": 3}, "image.tiles.sise: unknown key; did you mean image.tiles.size?"),
    ],
)
def test_tiles_that_do_not_fit_are_told(tiles: dict[str, int], told: str, write: Any) -> None:
    path = write(image={"height": 300, "tiles": tiles})
    assert f"{path}: {told}" in user_error(path).splitlines()


def test_a_backbone_of_random_weights_is_not_kept_as_it_is(write: Any) -> None:
    told = "train.layer_decay is 0, so the backbone would keep the random weights that model.weights: none gives"
    assert user_error(write(train={"layer_decay": 0})).endswith(told)
    assert load_config(write(train={"layer_decay": 0}, model={"weights": "imagenet"})).train.layer_decay == 0


def test_tiles_and_other_formats_are_told_apart(write: Any) -> None:
    text = user_error(write(image={"tiles": {"size": 64}}, export={"formats": ["onnx"]}))
    assert text.endswith("export.formats: other formats can't hold the loop over image.tiles; leave out one of the two")


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"train": {"half_size": 0.5, "budget": "2m"}}, "train: half_size (0.5) does not work with a budget"),
        ({"train": {"half_size": 0.5, "teacher": "pushed"}}, "train: half_size (0.5) does not work with a teacher"),
        ({"train": {"half_size": 0.5}, "image": {"tiles": {"size": 64, "overlap": 8}}}, "train.half_size: does not work with"),
        ({"train": {"half_size": 0.5}, "model": {"backbone": "hub:folder"}}, "train.half_size: does not work with a hub:"),
        (
            {"data": {"path": ".", "originals": "reference"}, "image": {"intensity": "percentiles"}},
            "reference does not work with",
        ),
        ({"data": {"path": ".", "store": "png"}, "image": {"intensity": "percentiles"}}, "data.store: png does not work with"),
        (
            {"data": {"path": ".", "store": "jpeg"}, "image": {"channels": 4}, "model": {"backbone": "small_resnet10"}},
            "data.store: jpeg has no alpha",
        ),
        ({"model": {"coordinates": True}, "image": {"tiles": {"size": 64, "overlap": 8}}}, "model.coordinates: would be"),
        ({"model": {"coordinates": True, "fusion_type": "none"}}, "model: coordinates are told to the pyramid"),
        ({"model": {"stochastic_depth": 0.1}}, "model: stochastic_depth is for efficientnet_v2 and some hub: backbones"),
    ],
)
def test_options_that_do_not_work_together_are_told(sections: dict[str, Any], told: str, write: Any) -> None:
    assert told in user_error(write(**sections))


def test_tiles_are_a_setting_of_the_training_alone(write: Any) -> None:
    whole, tiled = load_config(write()), load_config(write(image={"tiles": {"size": 64}}))
    assert trainer_settings(whole, "").tiles is None
    assert trainer_settings(tiled, "").tiles == TileSettings(size=64, overlap=0)
    assert transform_settings(tiled) == transform_settings(whole)
    assert ingestion_settings(tiled) == ingestion_settings(whole)


def test_epochs_and_steps_are_not_both_given(write: Any) -> None:
    path = write(train={"epochs": 10, "steps": 500})
    assert (
        user_error(path)
        == f"{path}: train: epochs (10) and steps (500) are both given; leave one of them out, or set steps to null"
    )
    config = load_config(write(train={"steps": 500}))
    assert load_config(write(dump_config(config))) == config
    space = {"train.learning_rate": [0.1, 0.2]}
    assert load_config(write(train={"steps": 500}, tune={"space": space})).tune.space == space


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("1h30m", 5400), ("2h5s", 7205), ("45", 45)])
def test_a_budget_is_a_time(text: str, seconds: float, write: Any) -> None:
    config = load_config(write(train={"epochs": 10}), overrides=[f"train.budget={text}"])
    assert config.train.budget == seconds
    assert load_config(write(dump_config(config))) == config


@pytest.mark.parametrize("text", ["20 minutes", "m", "''", "1.5h", "30m1h"])
def test_what_is_no_time_is_told(text: str, write: Any) -> None:
    assert "train.budget: write a time as 90s, 20m or 1h30m" in user_error(write(), overrides=(f"train.budget={text}",))


@pytest.mark.parametrize("text", ["0s", "-5", "true"])
def test_a_budget_is_above_0(text: str, write: Any) -> None:
    assert "train.budget: input should be" in user_error(write(), overrides=(f"train.budget={text}",))


def test_a_search_and_the_training_after_it_share_a_budget(write: Any) -> None:
    tune = {"enabled": True, "trials": 5, "space": {"train.learning_rate": [0.1, 0.2]}}
    config = load_config(write(tune=tune, train={"budget": "20m", "steps": 100}))
    assert trainer_settings(config, "").train.budget == 600
    trial = tuner_settings(config).train
    assert (trial.budget, trial.steps) == (120, None)
    alone = load_config(write(train={"budget": "20m"}))
    assert trainer_settings(alone, "").train.budget == 1200
    assert tuner_settings(load_config(write(tune=tune))).train.budget is None


def test_levels_in_the_wrong_order_are_told(write: Any) -> None:
    assert "min_level (5) must not be above max_level (3)" in user_error(write(model={"min_level": 5, "max_level": 3}))


def test_a_threshold_without_a_bound_is_told(write: Any) -> None:
    text = user_error(write(evaluate={"thresholds": [{"metric": "accuracy"}]}))
    assert "evaluate.thresholds.0: the threshold on accuracy needs lower, upper or change" in text


def test_the_rule_share_needs_a_class(write: Any) -> None:
    text = user_error(write(evaluate={"groups": {"rule": "share"}}))
    assert "evaluate.groups: rule share needs a class; set positive" in text


@pytest.mark.parametrize(
    ("threshold", "told"),
    [
        ({"slice": {"meta/a": "1", "meta/b": "2", "meta/c": "3"}}, "can name two slice features, not 3"),
        ({"slice": {"meta/a": "1"}, "worst_of": ["meta/b"]}, "has both slice and worst_of"),
        ({"of": "groups", "worst_of": ["meta/b"]}, "of groups takes lower and upper alone"),
    ],
)
def test_a_threshold_that_means_two_things_is_told(threshold: dict, told: str, write: Any) -> None:
    thresholds = [{"metric": "accuracy", "lower": 0.5, **threshold}]
    assert told in user_error(write(evaluate={"thresholds": thresholds}))


def test_a_threshold_on_shortcuts_takes_an_upper_bound_alone(write: Any) -> None:
    config = load_config(write(evaluate={"thresholds": [{"metric": "shortcut", "upper": 0.75}]}))
    assert load_config(write(dump_config(config))) == config
    for wrong in ({"lower": 0.6, "upper": 0.75}, {"upper": 0.5}, {"upper": 1.0}, {"change": 0.1}):
        text = user_error(write(evaluate={"thresholds": [{"metric": "shortcut", **wrong}]}))
        assert "evaluate.thresholds.0: the threshold on shortcut takes upper alone, between 0.5, which is chance, and 1" in text


def test_thresholds_may_be_left_to_the_default(write: Any) -> None:
    config = load_config(write(evaluate={"thresholds": None}))
    assert config == load_config(write()) == load_config(write(dump_config(config)))
    assert config.evaluate.thresholds is None


@pytest.mark.parametrize("backbone", ["resnet50", "resnet101", "mobilenet_v2"])
def test_four_channels_need_a_backbone_of_our_own(backbone: str, write: Any) -> None:
    text = user_error(write(image={"channels": 4}, model={"backbone": backbone}))
    assert f"image.channels is 4, but model.backbone {backbone} takes 1 or 3" in text


def test_the_small_backbone_takes_four_channels(write: Any) -> None:
    assert load_config(write(image={"channels": 4}, model={"backbone": "small_resnet10"})).image.channels == 4


@pytest.mark.parametrize(("backbone", "coarsest"), [("small_resnet18", 4), ("resnet50", 5)])
def test_the_coarsest_level_is_the_backbones_last_one_unless_another_is_given(backbone: str, coarsest: int, write: Any) -> None:
    assert load_config(write(model={"backbone": backbone})).model.max_level == coarsest
    assert load_config(write(model={"backbone": backbone, "fusion_type": "none"})).model.max_level == coarsest
    assert load_config(write(model={"backbone": backbone, "max_level": 6})).model.max_level == 6


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


def test_what_a_run_of_an_earlier_release_has_recorded_is_read(write: Any) -> None:
    path = write("name: test\ndata: {path: images}\ntrain: {epochs: 3, calibrate: false}\n")
    config = load_config(path, recorded=True)
    assert (config.calibrate.temperature, config.train.epochs) == (False, 3)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("image.height", "--set image.height: write it as section.key=value"),
        ("=3", "--set =3: write it as section.key=value"),
        ("data.path.deep=3", "--set data.path.deep=3: path is a value, not a section"),
        ("image.height=[1", "--set image.height=[1: the value is not YAML"),
        ("image.heigth=3", "image.heigth: unknown key; did you mean image.height?"),
        ("image.height=tall", "image.height: input should be a valid integer"),
        ("train={teacher: a, loss: focal}", "train: loss must be cross_entropy with a teacher, because focal does not lead"),
        ("train={teacher: a, label_smoothing: 0.1}", "train: label_smoothing must be 0 with a teacher, whose answers are soft"),
        ("train.calibrate=false", "train.calibrate: is now calibrate.temperature"),
        ("calibrate.sets.coverage=1", "calibrate.sets.coverage: input should be less than 1"),
        ("calibrate.sets.method=mean", "calibrate.sets.method: input should be 'lac', 'aps' or 'raps'"),
        ("calibrate.abstain={}", "calibrate.abstain.risk: is missing"),
        ("calibrate.unusual=99", "calibrate.unusual: must be a section with keys such as cutoff, is 99"),
        ("kubeflow.components.Trainer.gpu=1", "did you mean kubeflow.components.Trainer.gpus?"),
        ("kubeflow.components.Trainer=1", "kubeflow.components.Trainer: must be a section with keys such as cpu_request, is 1"),
        ("train.teacher_temperature=0", "train.teacher_temperature: input should be greater than 0"),
        ("data.spans={newest: 1}", "data: spans: are told apart by {SPAN} in path, which is images; give a path with it"),
        ("train.warm_start=s3://bucket/pushed", "train.warm_start: TensorFlow does not read s3://bucket/pushed; name a copy"),
    ],
)
def test_a_bad_override_is_told(override: str, told: str, write: Any) -> None:
    assert told in user_error(write(), overrides=(override,))


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        (
            {"data": {"path": "a", "splits": {"stratify": True}}},
            "does not work with data.splits.stratify, which deals",
        ),
        ({"tune": {"enabled": True, "space": {"train.learning_rate": [0.1, 0.2]}}}, "does not work with tune.enabled"),
        ({"push": {"path": "s3://bucket/pushed"}}, "TensorFlow does not read s3://bucket/pushed"),
    ],
)
def test_what_a_start_from_an_earlier_model_does_not_go_with_is_told(sections: dict[str, Any], told: str, write: Any) -> None:
    assert told in user_error(write(**sections), overrides=("train.warm_start=blessed",))


def test_weights_of_many_classes_do_not_go_with_a_teacher(write: Any) -> None:
    path = write(data={"path": "images", "multi_label": True}, train={"class_weights": "balanced"})
    assert "train.class_weights: must be none with a teacher of multi" in user_error(path, overrides=("train.teacher=a",))


@pytest.mark.parametrize("promise", ["sets={}", "abstain={risk: 0.1}"])
def test_nothing_is_promised_of_images_with_several_labels(promise: str, write: Any) -> None:
    path = write(data={"path": "images", "multi_label": True})
    key = promise.partition("=")[0]
    assert f"calibrate.{key}: is for images of one class each" in user_error(path, overrides=(f"calibrate.{promise}",))


# Data


def test_the_data_argument_replaces_the_path_and_drops_the_sample(write: Any) -> None:
    path = write(data={"path": "data/digits", "sample": "digits", "max_rejected": 0.5})
    assert load_config(path).data.sample == "digits"
    config = load_config(path, "elsewhere")
    assert (config.data.path, config.data.sample, config.data.max_rejected) == ("elsewhere", None, 0.5)


@pytest.mark.case(21)
def test_a_tilde_stands_for_the_home_folder(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    path = write(
        data={"path": "~/images", "schema": "~/my.pbtxt"},
        model={"weights": "~/best.h5", "backbone": "resnet50"},
        train={"teacher": "~/teacher"},
        push={"path": "~/models"},
        score={"path": "~"},
    )
    config = load_config(path)
    found = (config.data.path, config.data.schema_file, config.model.weights, config.push.path, config.score.path)
    assert found == ("/home/ada/images", "/home/ada/my.pbtxt", "/home/ada/best.h5", "/home/ada/models", "/home/ada")
    assert config.train.teacher == "/home/ada/teacher"
    assert load_config(path, "~/elsewhere").data.path == "/home/ada/elsewhere"
    assert load_config(path, "./~/x~y").data.path == "./~/x~y"


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


# The search space


def test_choices_are_what_the_key_would_take(write: Any) -> None:
    space = {"train.learning_rate": [1, 0.1], "train.optimizer": ["sgd", "adamw"], "train.freeze_batch_norm": [True, False]}
    loaded = load_config(write(tune={"enabled": True, "space": space})).tune.space
    assert loaded == space
    assert [type(choice) for choice in loaded["train.learning_rate"]] == [float, float]


@pytest.mark.parametrize(
    ("key", "given", "choices"),
    [
        ("augment.rotation", {"min": 0, "max": 0.5, "step": 0.1}, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        ("model.num_filters", {"min": 16, "max": 70, "step": 2, "log": True}, [16, 32, 64]),
        ("train.weight_decay", {"min": 1e-4, "max": 0.1, "step": 10, "log": True}, [1e-4, 1e-3, 0.01, 0.1]),
        ("train.learning_rate", {"min": 1e-4, "max": 1e-2, "log": True}, {"min": 1e-4, "max": 1e-2, "log": True}),
        ("model.num_filters", {"min": 16, "max": 70}, {"min": 16, "max": 70, "log": False}),
    ],
)
def test_a_range_with_steps_is_a_list_of_choices(key: str, given: Any, choices: Any, write: Any) -> None:
    assert load_config(write(tune={"space": {key: given}})).tune.space == {key: choices}


def test_an_override_adds_to_the_search_space_or_replaces_a_key_of_it(write: Any) -> None:
    path = write(tune={"space": {"train.learning_rate": [0.1, 0.2], "train.ema": [0.0, 0.9]}})
    overrides = ["tune.space.train.learning_rate=[0.3, 0.4]", "tune.space.model.dropout=[0.1, 0.2]"]
    assert load_config(path, overrides=overrides).tune.space == {
        "train.learning_rate": [0.3, 0.4],
        "train.ema": [0.0, 0.9],
        "model.dropout": [0.1, 0.2],
    }


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({}, "tune.space: is empty; name what to search"),
        ({"train.learning_rat": [1, 2]}, "tune.space.train.learning_rat: unknown key; did you mean train.learning_rate?"),
        ({"image.height": [16, 32]}, "tune.space.image.height: unknown key; "),
        ({"zzz": [1, 2]}, "tune.space.zzz: unknown key; it takes keys of train, model and augment"),
        (
            {"model.backbone": ["resnet50", "small_resnet10"], "model.weights": ["none", "imagenet"]},
            "tune.space: model: there are no imagenet weights of small_resnet10",
        ),
        ({"train.epochs": [3, 4]}, "tune.space.train.epochs: a trial has tune.epochs"),
        ({"train.teacher": ["a", "b"]}, "tune.space.train.teacher: it is looked at before the run"),
        ({"train.monitor": ["loss", "f1"]}, "tune.space.train.monitor: it is what trials are compared by"),
        ({"train.label_smoothing": [0, 0.1]}, "tune.space.train.label_smoothing: changes what the loss measures; "),
        ({"train.optimizer": ["sgd", "adamm"]}, "tune.space: train.optimizer: input should be 'adamw', "),
        ({"train.learning_rate": [0.1, -1]}, "tune.space: train.learning_rate: input should be greater than 0, is -1"),
        ({"model.max_level": [5, 1]}, "tune.space: model: min_level (2) must not be above max_level (1)"),
        ({"model.num_filters": {"min": 8, "max": 9.5}}, "tune.space: model.num_filters: input should be a valid integer"),
        ({"model.num_filters": {"min": 8, "max": 16, "step": 0.5}}, "tune.space: model.num_filters: input should be a valid"),
        ({"train.freeze_batch_norm": {"min": 0, "max": 1}}, "tune.space: train.freeze_batch_norm: input should be a valid"),
        ({"model.dropout": {"min": 0.5, "max": 0.1}}, "tune.space.model.dropout: min (0.5) must be below max (0.1)"),
        ({"model.dropout": {"min": 0, "max": 0.1, "log": True}}, "tune.space.model.dropout: with log, min (0) must be above 0"),
        ({"model.dropout": {"min": 0, "max": 0.1, "step": 0}}, "tune.space.model.dropout: step (0) must be above 0"),
        ({"model.dropout": {"min": 0, "mx": 0.1}}, "tune.space.model.dropout.max: is missing"),
        ({"model.dropout": {"min": 0, "max": 1, "stp": 1}}, "stp: unknown key; did you mean tune.space.model.dropout.step?"),
        ({"model.dropout": 0.5}, "tune.space.model.dropout: write a list of choices, or {min: ..., max: ...}"),
        ({"model.dropout": [0.5]}, "tune.space.model.dropout: needs two or more choices, each once"),
        ({"model.dropout": [0, 0.0]}, "tune.space.model.dropout: needs two or more choices, each once"),
        ({"train.fine_tune_learning_rate": [None, 0.1]}, "tune.space.train.fine_tune_learning_rate: null can't be a choice"),
    ],
)
def test_a_search_space_that_does_not_fit_is_told(space: Any, told: str, write: Any) -> None:
    path = write(tune={"enabled": True, "space": space})
    text = user_error(path)
    assert text.startswith(f"{path}: tune.space")
    assert told in text
    assert len(text.splitlines()) == 1


def test_the_kind_of_loss_can_be_searched_if_trials_are_compared_by_another_metric(write: Any) -> None:
    sections = {"train": {"monitor": "accuracy"}, "tune": {"space": {"train.loss": ["focal", "cross_entropy"]}}}
    assert load_config(write(**sections)).tune.space == {"train.loss": ["focal", "cross_entropy"]}
