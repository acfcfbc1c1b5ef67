"""The compiled pipeline, executed task by task as Kubeflow Pipelines would, against a run on this machine."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from few_digits import write_few_digits
from kubeflow_backend import Backend, TaskFailed
from PIL import Image

from evaluation.results import read_evaluation

DIGITS = 90  # three pictures each
BUCKET = {scheme: f"bucket-{scheme}" for scheme in ("minio", "s3", "gs")}
# Kubernetes makes one dollar of two, and fills in variables, in all that it hands to a container.
DATA = "da$$ta $(HOME)"

pytestmark = pytest.mark.extra


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("kubeflow")
    write_few_digits(place / DATA, DIGITS)
    return place


def compile_file(place: Path, fpn, root: str) -> Path:
    config = {
        "name": "few-digits",
        "data": {"path": str(place / DATA), "splits": {"train": 6, "eval": 2, "test": 2, "stratify": True}},
        "image": {"height": 16, "width": 16, "channels": 1},
        "model": {"backbone": "small_resnet10", "max_level": 3, "num_filters": 8},
        "train": {"epochs": 9, "batch_size": 32},
        "evaluate": {"thresholds": [{"metric": "accuracy", "lower": 1.01}]},
        "kubeflow": {
            "root": root,
            "state": str(place / f"state-{root.partition(':')[0]}"),
            "volumes": [{"claim": "fpn-data", "path": str(place)}],
            "secrets": [{"name": "files", "path": "/secrets"}],
            "pod": {"env": {"PRICE": "5$$ $(HOME)"}},
        },
    }
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    path = place / f"{root.partition(':')[0]}.yaml"
    ended = fpn("compile", "--config", place / "config.yaml", "--output", path)
    assert ended.status == 0, ended.stderr
    return path


ARGUMENTS = {"train_epochs": 1, "thresholds": json.dumps([{"metric": "accuracy", "lower": 0.01}])}


@pytest.fixture(scope="module")
def local(place, fpn):
    """The same on this machine, begun beside the first of the others."""
    overrides = [f"train.epochs={ARGUMENTS['train_epochs']}", f"evaluate.thresholds={ARGUMENTS['thresholds']}"]
    with ThreadPoolExecutor() as pool:
        compile_file(place, fpn, "s3://bucket/root")  # writes the configuration
        arguments = ["--config", place / "config.yaml", "--output", place / "out", "--json"]
        arguments += [item for override in overrides for item in ("--set", override)]
        yield pool.submit(fpn, "run", *arguments)


@pytest.fixture(scope="module", params=["minio", "s3", "gs"])
def scheme(request):
    return request.param


@pytest.fixture(scope="module")
def store(request, scheme):
    """A server of the root's kind: minio:// is S3, too."""
    found = request.getfixturevalue("gcs" if scheme == "gs" else "s3")
    found.create_bucket(BUCKET[scheme])
    return found


@pytest.fixture(scope="module")
def backend(place, store, scheme):
    folder = place / f"backend-{scheme}"
    folder.mkdir()
    return Backend(folder, store, BUCKET[scheme])


@pytest.fixture(scope="module")
def file(place, local, fpn, scheme):
    return compile_file(place, fpn, f"{scheme}://{BUCKET[scheme]}/root")


@pytest.fixture(scope="module")
def done(backend, file):
    return backend.run(file, ARGUMENTS)


def test_images_become_a_pushed_model(done, place, backend, scheme):
    assert set(done) >= {"Lookup", "ImageExampleGen", "Transform", "Trainer", "Evaluator", "ModelCheck", "Pusher"}
    (version,) = (place / f"state-{scheme}" / "few-digits" / "pushed").glob("[0-9]*")
    assert (version / "saved_model.pb").exists()
    pushed = done["Pusher"].artifacts["pushed_model"]
    assert pushed["metadata"]["pushed_destination"] == str(version)
    assert f"{pushed['uri'].partition(f'{BUCKET[scheme]}/')[2]}/saved_model.pb" in backend.keys(pushed["uri"])
    assert not [key for key in backend.keys(f"{scheme}://{BUCKET[scheme]}/") if key.endswith("/") or "/.work" in key]


def test_the_metrics_are_those_of_a_run_on_this_machine(done, local, backend, tmp_path):
    assert local.result().status == 0, local.result().stderr
    evaluation = read_evaluation(str(backend.download(done["Evaluator"].artifacts["evaluation"]["uri"], tmp_path)))
    expected = local.result().json["metrics"]
    assert {name: metric.value for name, metric in evaluation.overall.items()} == {
        name: pytest.approx(metric["value"], abs=1e-6) for name, metric in expected.items()
    }


def test_the_log_of_each_task_is_kept(done, backend):
    log = backend.read(done["Trainer"].artifacts["executor-logs"]["uri"]).decode()
    assert done["Trainer"].artifacts["executor-logs"]["uri"].endswith("/executor-logs-0")
    assert "Starting executor" in log


def test_an_unchanged_run_evaluates_nothing_and_makes_no_other_version(done, place, backend, file, scheme):
    again = backend.run(file, ARGUMENTS)
    # The validator looks again, as these statistics are kept now.
    assert {name for name, task in again.items() if not task.cached} == {"Lookup", "ExampleValidator", "Baseline", "Pusher"}
    assert again["Baseline"].parameters == done["Baseline"].parameters == {"baseline": "none"}
    assert len(list((place / f"state-{scheme}" / "few-digits" / "pushed").glob("[0-9]*"))) == 1


UNTIL_INGESTION = ("Lookup", "ImageExampleGen")


def test_other_data_on_another_claim_is_taken_in(done, backend, file, tmp_path):
    """Claims count by their names alone: a volume of another name may hold anything."""
    other = tmp_path / "other.yaml"
    other.write_text(file.read_text().replace("fpn-data", "other-data"))
    assert not backend.run(other, ARGUMENTS, only=UNTIL_INGESTION)["ImageExampleGen"].cached
    assert backend.run(file, ARGUMENTS, only=UNTIL_INGESTION)["ImageExampleGen"].cached


def test_a_task_that_fails_says_why_in_the_log_that_is_kept(done, backend, file):
    with pytest.raises(TaskFailed) as failed:
        backend.run(file, {**ARGUMENTS, "data_path": "/no/such/folder"}, only=UNTIL_INGESTION)
    last = backend.read(failed.value.log_uri).decode().splitlines()[-1]
    assert last.startswith("fpn: /no/such/folder: no such folder")


def test_a_changed_image_is_taken_in(done, place, backend, file):
    changed = next((place / DATA).rglob("*.png"))
    original = changed.read_bytes()
    Image.open(changed).rotate(90).save(changed)
    after = backend.run(file, ARGUMENTS, only=UNTIL_INGESTION)
    changed.write_bytes(original)
    assert not after["ImageExampleGen"].cached
    before = done["ImageExampleGen"].artifacts["examples"]
    assert (
        after["ImageExampleGen"].artifacts["examples"]["metadata"]["input_fingerprint"]
        != (before["metadata"]["input_fingerprint"])
    )


def test_a_marker_of_a_directory_breaks_the_launcher(backend, file, done, store, scheme):
    """What components must not leave behind where they write to gs:// themselves."""
    uri = done["ImageExampleGen"].artifacts["examples"]["uri"]
    marker = f"{uri.partition(f'{BUCKET[scheme]}/')[2]}/Split-train/"
    store.put(BUCKET[scheme], marker, b"")
    uncached = file.with_name("uncached.yaml")
    uncached.write_text(file.read_text().replace("enableCache: true", "enableCache: false"))
    with pytest.raises(TaskFailed, match="failed to download input artifact 'examples'"):
        backend.run(uncached, ARGUMENTS, only=("StatisticsGen",), after=done)
    store.delete(BUCKET[scheme], marker)


@pytest.mark.parametrize("scheme", ["gs"], indirect=True, scope="module")
def test_components_that_write_to_the_bucket_themselves_leave_no_markers(place, file, backend, done, tmp_path):
    """As on Vertex AI, and with engines whose workers can't see the launcher's copies."""
    spec, platform = yaml.safe_load_all(file.read_text())
    for executor in spec["deploymentSpec"]["executors"].values():
        executor["container"]["args"].append("--direct_gcs")
    direct = tmp_path / "direct.yaml"
    direct.write_text(yaml.safe_dump_all([spec, platform]))
    # Only so far: what comes after it writes through Beam, which moves files by batches that fake-gcs-server does not know.
    found = backend.run(direct, ARGUMENTS, only=UNTIL_INGESTION)
    uri = found["ImageExampleGen"].artifacts["examples"]["uri"]
    assert not found["ImageExampleGen"].cached
    assert any("Split-train/data_tfrecord" in key for key in backend.keys(uri))
    assert not [key for key in backend.keys(f"{uri.rpartition('/')[0]}/") if key.endswith("/") or "/.work" in key]
    backend.run(file, ARGUMENTS, only=("StatisticsGen",), after=found)  # downloads them
