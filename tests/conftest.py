"""Shared by all tests: how to start the command, a small exported model, and the long ones first."""

import contextlib
import fcntl
import gc
import io
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from object_stores import Store, Unavailable, gcs_server, s3_server
from PIL import Image

from tests.sweeps.runs import Starter

PROJECT = Path(__file__).parents[1]


def pytest_configure() -> None:
    """Looks for garbage more rarely: what TensorFlow leaves takes seconds to look at, and to free."""
    gc.set_threshold(200_000, 50, 50)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the files that take minutes, so that no process has one of them left when the others have ended."""
    long = ("test_pipeline.py", "e2e", "models", "test_bootstrap.py", "components")
    items.sort(key=lambda item: next((place for place, name in enumerate(long) if name in item.path.parts), len(long)))


def pytest_unconfigure() -> None:
    """Keeps the interpreter's last garbage collection off TensorFlow's remains, which it may crash on after an export."""
    gc.freeze()


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict:
        """The object on the last line of standard output."""
        return json.loads(self.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def starter(tmp_path_factory) -> Starter:
    """Starts processes as copies of one that has TensorFlow and TFX loaded, which takes ten seconds of processor time."""
    return Starter(tmp_path_factory.mktemp("screens"))


@pytest.fixture(scope="session")
def fpn(starter):
    """Runs `fpn ARGUMENTS...` in a process of its own, from any copy of the project's packages."""

    def run(*arguments: object, project: Path = PROJECT, columns: int = 120) -> Ended:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COLUMNS", str(columns))
            done = starter.run(list(map(str, arguments)), project, patience=None)
        return Ended(done.status, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def fresh_fpn():
    """As `fpn`, in an interpreter that starts anew, as a person's does."""

    def run(*arguments: object, project: Path = PROJECT, columns: int = 120) -> Ended:
        command = [sys.executable, "-m", "pipeline.cli", *map(str, arguments)]
        environment = {**os.environ, "COLUMNS": str(columns)}
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Makes a folder of files once for all processes of `pytest -n`: others wait for it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def get(name: str, make: Callable[[Path], None]) -> Path:
        folder, unfinished = root / name, root / f"{name}-unfinished"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                make(unfinished)
                unfinished.rename(folder)
        return folder

    return get


@pytest.fixture(scope="session")
def s3() -> Iterator[Store]:
    """A server of S3; the environment is left as it is."""
    with _had(s3_server()) as store:
        yield store


@pytest.fixture(scope="session")
def gcs() -> Iterator[Store]:
    """A server of Google Cloud Storage; the environment is left as it is."""
    with _had(gcs_server()) as store:
        yield store


@contextlib.contextmanager
def _had(server: contextlib.AbstractContextManager[Store]) -> Iterator[Store]:
    with contextlib.ExitStack() as stack:
        try:
            store = stack.enter_context(server)
        except Unavailable as reason:
            pytest.skip(str(reason))
        yield store


@pytest.fixture(params=["s3", "gs"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Either server, which this process and those that it starts reach."""
    found: Store = request.getfixturevalue({"s3": "s3", "gs": "gcs"}[request.param])
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def bucket(store: Store) -> str:
    """The name of a new bucket in it."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    store.create_bucket(name)
    return name


@dataclass(frozen=True)
class Exported:
    """A small classifier of grey images, exported with a temperature and over mirrored views.

    Attributes:
      path: the SavedModel.
      classifier: the network that it was made of.
      pictures: uint8 [7, 24, 20].
      files: the same, as PNG files.
      labels: their true classes.
      names: of the classes, in the model's order.
      probabilities: float32 [7, 3], what the export must answer.
    """

    path: str
    classifier: Any
    pictures: np.ndarray
    files: list[bytes]
    labels: list[bytes]
    names: list[bytes]
    probabilities: np.ndarray


@pytest.fixture(scope="session")
def exported(made_once) -> Exported:
    import apache_beam as beam
    import tensorflow as tf
    import tensorflow_transform as tft
    import tensorflow_transform.beam as tft_beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

    from models import features
    from models.export import export_model
    from models.fitting import Fitted
    from models.fpn import build_classifier
    from models.image_settings import TransformSettings
    from models.packing import as_dict
    from models.preprocessing import preprocessing_fn
    from pipeline.config.data import ImageConfig
    from pipeline.config.network import ModelConfig
    from pipeline.dag.component_settings import classifier_config, image_settings

    pictures = np.random.default_rng(11).integers(0, 256, (7, 24, 20), dtype=np.uint8)
    labels = [b"cat", b"dog", b"cat", b"owl", b"cat", b"dog", b"cat"]
    files = []
    for picture in pictures:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        files.append(buffer.getvalue())
    rows = [
        {features.ENCODED: [file], features.PIXELS: [b""], features.LABEL: [label]}
        for file, label in zip(files, labels, strict=True)
    ]
    spec = {name: tf.io.FixedLenFeature([1], tf.string) for name in (features.ENCODED, features.PIXELS, features.LABEL)}
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    image = image_settings(ImageConfig(height=24, width=20, channels=1))
    settings = as_dict(TransformSettings(image=image, multi_label=False, code=""))
    network = ModelConfig(backbone="small_resnet10", min_level=2, max_level=4, num_filters=8, fusion_type="concat", dropout=0.5)
    model = build_classifier(
        classifier_config(network),
        image_shape=(24, 20, 1),
        num_classes=3,
        channel_mean=[127.0],
        channel_variance=[5000.0],
    )

    def make(folder: Path) -> None:
        with (
            beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline,
            tft_beam.Context(temp_dir=str(folder / "temp")),
        ):
            raw = pipeline | beam.Create(rows)
            transform = (raw, metadata) | tft_beam.AnalyzeDataset(lambda inputs: preprocessing_fn(inputs, settings))
            _ = transform | tft_beam.WriteTransformFn(str(folder / "transform"))
            _ = metadata | tft_beam.WriteMetadata(str(folder / "transform" / "metadata"), pipeline)
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(pictures[..., None], np.arange(7) % 3, verbose=0)  # the optimizer has state, none of which may be exported
        model.save_weights(folder / "classifier.weights.h5")
        transform_output = tft.TFTransformOutput(str(folder / "transform"))
        export_model(
            model, transform_output, str(folder / "model"), fitted=Fitted(temperature=1.7), test_time_augmentation="flip"
        )

    folder = made_once("exported", make)
    model.load_weights(folder / "classifier.weights.h5")
    views = [model(images[..., None], training=False) for images in (pictures, pictures[:, :, ::-1])]
    probabilities = tf.nn.softmax((views[0] + views[1]) / 2 / 1.7).numpy()
    return Exported(str(folder / "model"), model, pictures, files, labels, [b"cat", b"dog", b"owl"], probabilities)


@dataclass(frozen=True)
class Promising:
    """The classifier of `exported`, which gives sets of classes and abstains from some answers.

    Attributes:
      path: the SavedModel.
      sets: bool [7, 3], what it must give for the pictures.
      labels: likewise, names or "unknown".
    """

    path: str
    sets: np.ndarray
    labels: list[str]


@pytest.fixture(scope="session")
def promising(exported, made_once) -> Promising:
    import tensorflow_transform as tft

    from models.abstention import Abstention
    from models.conformal import PredictionSets
    from models.export import export_model
    from models.fitting import Fitted

    probabilities = exported.probabilities
    before = np.array([[row[row > own].sum() for own in row] for row in probabilities])  # the score of APS
    limits = [None, *((np.sort(column)[3] + np.sort(column)[4]) / 2 for column in before.T[1:])]
    sets = before <= [np.inf if limit is None else limit for limit in limits]
    sure = np.sort(probabilities.max(axis=1))
    least = float(sure[2] + sure[3]) / 2
    fitted = Fitted(
        1.7,
        PredictionSets("aps", 0.9, True, tuple(limits), (1, 1, 1), 9),
        Abstention(0.1, 0.95, least, 7, 4, 0, 0.1),
    )
    transform_output = tft.TFTransformOutput(str(Path(exported.path).parent / "transform"))

    def make(folder: Path) -> None:
        path = str(folder / "model")
        export_model(exported.classifier, transform_output, path, fitted=fitted, test_time_augmentation="flip")

    path = made_once("promising", make) / "model"
    names = [exported.names[best].decode() for best in probabilities.argmax(axis=1)]
    labels = [name if row.max() > least else "unknown" for name, row in zip(names, probabilities, strict=True)]
    return Promising(str(path), sets, labels)


@dataclass(frozen=True)
class Telling:
    """The classifier of `exported`, which says how unusual an image is.

    Attributes:
      path: the SavedModel.
      fitted: what was built into it; with a cut-off above four of the pictures.
      answers: to 67 images, the pictures and noise, on which it was fitted.
    """

    path: str
    fitted: Any
    answers: Any


@pytest.fixture(scope="session")
def telling(exported, made_once) -> Telling:
    import tensorflow as tf
    import tensorflow_transform as tft

    from models.export import export_model
    from models.fitting import Answers, Fitted
    from models.inference import InferenceModel
    from models.reference import Sample
    from models.unusual import Unusual, fit_distance, fit_percentiles, percentiles

    noise = np.random.default_rng(4).integers(0, 256, (60, 24, 20, 1), dtype=np.uint8)
    images = np.concatenate([exported.pictures[..., None], noise])
    logits, embeddings = (value.numpy() for value in InferenceModel(exported.classifier, "flip")(tf.constant(images)))
    distance = fit_distance(embeddings)
    distances = distance(tf.constant(embeddings)).numpy()
    quantiles = fit_percentiles(distances, len(images)).quantiles
    cutoff = float(np.median(percentiles(tf.constant(distances[:7]), quantiles))) + 0.1
    fitted = Fitted(1.7, unusual=Unusual(distance, quantiles, cutoff))
    rows = np.arange(0, 67, 2)
    labels = np.eye(3, dtype=np.float32)[np.arange(67) % 3]
    answers = Answers(logits, labels, np.arange(67), distances, Sample(rows, embeddings[rows]))
    transform_output = tft.TFTransformOutput(str(Path(exported.path).parent / "transform"))

    def make(folder: Path) -> None:
        path = str(folder / "model")
        export_model(
            exported.classifier, transform_output, path, fitted=fitted, test_time_augmentation="flip", reference=answers
        )

    path = made_once("telling", make) / "model"
    return Telling(str(path), fitted, answers)


@pytest.fixture(scope="session")
def pictures(exported, tmp_path_factory) -> Path:
    """A folder with the files of `exported`, by their numbers."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, file in enumerate(exported.files):
        (folder / f"{number}.png").write_bytes(file)
    return folder
