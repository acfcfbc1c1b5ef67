"""Names that YAML and code share: each is declared once, and is what the code that implements it knows."""

import ast
import importlib
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import keras
import numpy as np
import pytest
from apache_beam.options.pipeline_options import FlinkRunnerOptions
from kfp import kubernetes

from components.model_formats import executor as model_formats
from evaluation import groups, intervals, metrics
from evaluation.settings import GroupRule, RuleName
from models import backbones, formats, fpn, optimization, preprocessing, tuning
from models.choices import Activation
from pipeline.config import beam as beam_config
from pipeline.config.whole import Config
from pipeline.dag import component_settings
from pipeline.dag import pipeline as pipeline_module
from pipeline.dag.pipeline import create_pipeline
from pipeline.kubeflow.compiler import build_job
from pipeline.local import tracker_process
from pipeline.samples.known import SAMPLES

PROJECT = Path(__file__).parents[1]
PACKAGES = ("base", "models", "storage", "images", "evaluation", "components", "pipeline")


def parsed(path: str) -> ast.Module:
    return ast.parse((PROJECT / path).read_text(encoding="utf-8"))


def texts(node: ast.expr) -> set[str]:
    items = node.elts if isinstance(node, ast.Tuple | ast.List) else [node]
    return {item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)}


def told_apart(key: str, *paths: str, otherwise: str | None = None) -> set[str]:
    """Names that a setting is compared with in these modules, and the one that is left to an `else`."""
    found: set[str] = set()
    for node in itertools.chain.from_iterable(ast.walk(parsed(path)) for path in paths):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(key == getattr(side, "attr", getattr(side, "id", None)) for side in sides):
                found.update(*map(texts, sides))
    assert otherwise not in found, f"{otherwise} has a branch of its own"
    return found | {otherwise} if otherwise else found


def keys_of(name: str, path: str) -> set[str]:
    """Keys of the dictionaries that these names are given, also in functions."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and ast.unparse(node.targets[0]) == name:
            found.update(*(texts(key) for key in node.value.keys if key))
    return found


def views() -> set[str]:
    """Every combination of the kinds of views that an inference model can add."""
    kinds = sorted(told_apart("test_time_augmentation", "models/inference.py") - {"none"})
    return {"none", *("_".join(some) for size in (1, 2) for some in itertools.combinations(kinds, size))}


def described(rules: Iterable[str]) -> Iterator[str]:
    for rule in rules:
        assert groups.describe(GroupRule(rule=rule, share=0.5, positive="a"))
        yield rule


def monitored() -> set[str]:
    kinds = [{metric.name for metric in optimization.build_metrics(2, multi_label)} for multi_label in (False, True)]
    assert kinds[0] == kinds[1]
    return {"loss", *kinds[0]}


def of_toleration(argument: str) -> set[str]:
    optional = get_type_hints(kubernetes.add_toleration)[argument]
    return {name for item in get_args(optional) for name in get_args(item)}


def config(**sections: Any) -> Config:
    kubeflow = {"root": "gs://bucket/root"}
    return Config.model_validate({"name": "x", "data": {"path": "gs://bucket/data"}, "kubeflow": kubeflow} | sections)


OPTIONAL: list[dict[str, Any]] = [
    {"data": {"path": "gs://bucket/data", "schema": "gs://bucket/schema.pbtxt"}},
    {"tune": {"enabled": True, "space": {"train.learning_rate": [0.1, 0.2]}}},
    {"check": {"enabled": False}},
    {"export": {"formats": ["onnx"]}},
    {"labels": {"enabled": True}},
    {"score": {"path": "gs://bucket/score"}},
]
WARM = {"train": {"warm_start": "blessed"}}
SHAPES = [
    dict(itertools.chain.from_iterable(section.items() for section in sections))
    for size in range(len(OPTIONAL) + 1)
    for sections in itertools.combinations(OPTIONAL, size)
]


def compiled() -> set[str]:
    """Tasks of the pipelines for Kubeflow with all that there can be, with either kind of schema."""
    everything = {key: value for sections in OPTIONAL for key, value in sections.items() if key != "check"}
    inferred = {key: value for key, value in everything.items() if key != "data"}
    return {name for shape in (everything, inferred) for name in build_job(config(**shape))["pipelineSpec"]["components"]}


IMPLEMENTED: dict[str, Callable[[], set[Any]]] = {
    "Activation": lambda: {"none", *(name for name in get_args(Activation) if name != "none" and keras.activations.get(name))},
    "Algorithm": lambda: set(tuning._ORACLES),
    "BackboneName": lambda: set(backbones.BACKBONES),
    "Channels": lambda: set(preprocessing._CHANNEL_MATRICES),
    "ClassWeights": lambda: told_apart("class_weights", "models/training.py", otherwise="none"),
    "CoarseLevels": lambda: told_apart("coarse_levels", "models/fpn.py"),
    "ColumnType": lambda: keys_of("kinds", "images/dataset/manifest.py"),
    "Combine": lambda: told_apart("combine", "models/fpn.py", otherwise="concat"),
    "ComponentName": compiled,
    "Counted": lambda: told_apart("of", "evaluation/verdicts.py", otherwise="images"),
    "Duplicates": lambda: told_apart("duplicates", "components/image_example_gen/executor.py", otherwise="report"),
    "Environment": lambda: told_apart("environment", "pipeline/config/beam.py"),
    "FlinkVersion": lambda: set(FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS),
    "Flip": lambda: told_apart("flip", "models/augmentation.py"),
    "Format": lambda: set(formats.FILES),
    "FusionOrNone": lambda: told_apart("fusion_type", "models/fpn.py", otherwise="sum"),
    "FusionType": lambda: told_apart("fusion_type", "models/fpn.py", otherwise="sum") - {"none"},
    "GreyInput": lambda: told_apart("grey_input", "models/backbones.py", otherwise="repeat"),
    "ImagePullPolicy": lambda: told_apart("policy", inspect.getfile(kubernetes.set_image_pull_policy)),
    "Intensity": lambda: told_apart("intensity", "models/preprocessing.py", "images/files/pixels.py"),
    "IntervalMethod": lambda: set(intervals.METHODS),
    "Keep": lambda: told_apart("keep", "models/callbacks.py", otherwise="last"),
    "Layout": lambda: told_apart("layout", "images/dataset/tree.py"),
    "LossName": lambda: told_apart("loss", "models/optimization.py", otherwise="focal"),
    "Monitor": monitored,
    "Norm": lambda: told_apart("norm", "models/fpn.py"),
    "Optimizer": lambda: set(optimization._OPTIMIZERS),
    "Originals": lambda: told_apart(
        "originals", "images/loading.py", "components/image_example_gen/executor.py", otherwise="copy"
    ),
    "Pages": lambda: told_apart("pages", "images/files/tiff.py", "images/files/dicom.py"),
    "Pooling": lambda: {*fpn._POOLING, *told_apart("pooling", "models/fpn.py")},
    "RecipeName": lambda: {path.stem for path in (PROJECT / "pipeline/local/recipes").iterdir()},
    "Resize": lambda: told_apart("resize", "models/preprocessing.py", otherwise="stretch"),
    "RuleName": lambda: told_apart("rule", "evaluation/groups.py", otherwise="vote"),
    "Runner": lambda: told_apart("runner", "pipeline/dag/beam.py", otherwise="portable"),
    "SampleName": lambda: set(SAMPLES),
    "SetMethod": lambda: told_apart("method", "models/conformal.py", otherwise="aps"),
    "Store": lambda: told_apart("store", "models/preprocessing.py", otherwise="png"),
    "TaintEffect": lambda: {"", *of_toleration("effect")},
    "PipelineName": lambda: told_apart("pipeline", "pipeline/kubeflow/compiler.py", otherwise="monitor"),
    "Target": lambda: told_apart("target", "pipeline/kubeflow/compiler.py"),
    "TestTimeAugmentation": views,
    "TolerationOperator": lambda: of_toleration("operator"),
    "TrackerName": lambda: set(tracker_process.TRACKERS),
}


def declarations() -> Iterator[tuple[str, str]]:
    """(module, name) of each Literal of the product; the name is what it is assigned to, "" where it has none."""
    for path in sorted(path for package in PACKAGES for path in (PROJECT / package).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
        named = {id(node.value): ast.unparse(node.targets[0]) for node in tree.body if isinstance(node, ast.Assign)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Subscript) and ast.unparse(node.value).rpartition(".")[2] == "Literal":
                yield module, named.get(id(node), "")


DECLARED = list(declarations())


def test_each_choice_is_declared_once_and_has_an_implementation() -> None:
    assert sorted(name for _, name in DECLARED) == sorted(IMPLEMENTED)
    sets = [frozenset(get_args(getattr(importlib.import_module(module), name))) for module, name in DECLARED]
    assert len(set(sets)) == len(sets)


@pytest.mark.parametrize(("module", "name"), DECLARED, ids=[name for _, name in DECLARED])
def test_a_choice_is_what_is_implemented(module: str, name: str) -> None:
    assert set(get_args(getattr(importlib.import_module(module), name))) == IMPLEMENTED[name]()


def test_every_other_place_that_asks_for_a_choice_knows_the_same() -> None:
    assert told_apart("kind", "images/dataset/records.py", otherwise="real") >= IMPLEMENTED["ColumnType"]()
    assert told_apart("intensity", "images/files/dicom.py", otherwise="type") == IMPLEMENTED["Intensity"]()
    assert {runner for runners in beam_config._BEAM_KEYS.values() for runner in runners} < IMPLEMENTED["Runner"]()
    assert set(described(get_args(RuleName))) == IMPLEMENTED["RuleName"]()


@pytest.mark.parametrize("state", [None, "gs://bucket/state"])
def test_every_shape_of_the_pipeline_has_components_of_known_names(state: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pipeline_module, component_settings):
        monkeypatch.setattr(module, "code_digest", str)  # which reads all code
    ids: set[str] = set()
    for shape in [*SHAPES, WARM]:
        for push_folder in (None, "gs://bucket/pushed"):
            pipeline = create_pipeline(config(**shape), pipeline_root="gs://bucket", push_folder=push_folder, state=state)
            ids |= {component.id for component in pipeline.components}
    added = {"Lookup", "Baseline"}  # by the compiler, where runs ask no store; these ask it by resolvers
    of_stores = {"PreviousStatistics", "Baseline", "BaseModel"}
    assert ids == compiled() - added | (set() if state else of_stores)


# Metrics, of which YAML takes more names than can be listed: top_<k>_accuracy


def test_the_metrics_are_what_is_computed() -> None:
    path = "evaluation/metrics.py"
    subscripts = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Subscript)]
    by_class = {name for node in subscripts if ast.unparse(node.value) == "found" for name in texts(node.slice)}
    computed = told_apart("name", path) | keys_of("special", path) | by_class
    assert computed == {name for name in metrics.METRICS if not metrics._TOP_K.fullmatch(name)}


@pytest.mark.parametrize("multi_label", [False, True])
def test_every_metric_of_the_data_is_computed(multi_label: bool) -> None:
    labels = np.array([0, 1, 2, 3, 0])
    names = [name for name in metrics.METRICS if metrics._fits(metrics.METRICS[name], multi_label)]
    assert list(metrics.compute(names, np.eye(4)[labels] if multi_label else labels, np.eye(4)[labels])) == names


def test_lists_of_some_metrics_name_no_others() -> None:
    some = [
        groups.GROUP_METRICS,
        intervals._CONTINUOUS,
        intervals._DISTANCES,
        intervals._OVER_ALL_IMAGES,
        model_formats._ALWAYS_MEASURED,
    ]
    assert {name for names in some for name in names} <= metrics.METRICS.keys()
