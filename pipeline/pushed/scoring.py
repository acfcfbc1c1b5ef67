"""Classifies all images of a data set with a pushed model.

The answers go into tables in a folder, one per shard, so that a run can go on where an earlier one was stopped.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from base.errors import UserError, user_error
from base.inputs import check_regular, parse_json_object
from base.paths import absolute
from components.pusher.integrity import digest_of
from images.dataset import source
from images.dataset.listing import is_remote
from images.settings import SourceSettings
from models.packing import as_dict
from pipeline.config.whole import Config
from pipeline.dag.beam import check_engine, pipeline_args
from pipeline.dag.component_settings import group_rule, source_settings
from pipeline.pushed.pushed_model import file_settings, find_version
from pipeline.terminal.engine import start_engine
from pipeline.terminal.progress import waiting
from storage.stores import check_bucket

SUMMARY_FILE: Final = "summary.json"
JOB_FILE: Final = "job.json"  # everything that the shards depend on
_LOCK_FILE: Final = ".lock"
_WRITTEN: Final = ("scores", "groups.parquet", "rejected.csv", SUMMARY_FILE, JOB_FILE)
_DIFFERENCES: Final = {"model": "of another model", "data": "of other data", "settings": "under other settings"}


def score(
    config: Config, model: Path, output: str, console: Console, *, overwrite: bool = False, public_key: Path | None = None
) -> dict[str, Any]:
    """Classifies the images of `config.data.path`.

    Writes below `output`: `scores/` with one Parquet file per shard, `rejected.csv`, `groups.parquet` if groups have several
    images, and `summary.json`. Shards that are there already, from a run that was stopped, are kept; the answers of groups are
    always computed again.

    Args:
      config: only the sections `data`, `score` and `beam`, and `evaluate.groups` are used.
      model: a SavedModel, or a folder of numbered versions, of which the newest is used.
      output: folder, local or on one of Beam's file systems.
      console: for progress.
      overwrite: whether to delete what an earlier run has written into the folder, and to start again.
      public_key: PEM file; the model must then be signed by this key.

    Returns:
      The content of `summary.json`.

    Raises:
      UserError: the model, the data or the folder can't be used.
    """
    began = time.monotonic()
    version, data = find_version(model, public_key), config.data.path
    settings = source_settings(config.data, labelled=False)
    files = file_settings(version, config.data.max_pixels, config.data.pages)
    check_engine(config.beam, {"--data": source.root_of(data), "--model": str(version), "--output": output})
    found = source.find_rows(data, settings)
    rows, lost = found.rows, found.losses
    job = {
        "model": digest_of(str(version)),
        "data": source.fingerprint(data, settings),
        "settings": {
            **_image_settings(settings),
            **as_dict(files),
            "shard_images": config.score.shard_images,
            **({"embeddings": True} if config.score.embeddings else {}),
        },
    }
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    start_engine(config.beam, console)
    with waiting(console, "loading TensorFlow"):
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
        from tfx.dsl.io import fileio

        from components.bulk_inferrer.model import gives, is_multi_label, read_classes
        from components.bulk_inferrer.scores import Tables
        from components.bulk_inferrer.shards import score_shards
        from evaluation.groups import describe, position_of
        from images.shards import make_shards
    folder = str(version)
    classes, rule = read_classes(folder), group_rule(config.evaluate.groups)
    if rule.rule == "share":
        position_of(classes, rule.positive)
    shards = make_shards(rows, config.score.shard_images)
    told = (gives(folder, name) for name in ("label_set", "unusual"))
    tables = Tables(absolute(output), classes, is_multi_label(folder), len(shards), config.score.embeddings, *told)
    with _reserve(output, job, overwrite):
        missing = [number for number in range(len(shards)) if not fileio.exists(tables.path(number))]
        what = f"answering {sum(len(shards[number]) for number in missing)} images"
        with waiting(console, what) as show, _unwrap_user_error():
            score_shards(
                beam.Pipeline(options=PipelineOptions(pipeline_args(config.beam))),
                [(number, shards[number]) for number in missing],
                absolute(source.root_of(data)),
                files,
                absolute(folder),
                tables,
                config.score.batch_size,
                lambda _, done, shards: show(f"{what}, shard {done}/{shards}"),
            )
        with waiting(console, "counting"):
            counts = tables.finish(rule)
        seconds = time.monotonic() - began
        summary = {
            "model": os.path.abspath(version),
            "model_version": version.name,
            "model_digest": job["model"],
            "data": data if is_remote(data) else os.path.abspath(data),
            "output": output,
            "images": counts.images,
            "labels": counts.labels,
            "rejected": sum(counts.rejected.values()),
            "reasons": counts.rejected,
            "lost": asdict(lost) if lost else None,
            "groups": None
            if counts.groups is None
            else {"count": counts.groups, "labels": counts.group_labels, "rule": describe(rule)},
            "shards": len(shards),
            "shards_kept": len(shards) - len(missing),
            "seconds": round(seconds, 2),
        }
        _write_json(_in(output, SUMMARY_FILE), summary)
    if not counts.images:
        reason = next(iter(counts.rejected), "there are none")
        raise UserError(f"{data}: no image can be used ({reason}); all are listed in {_in(output, 'rejected.csv')}")
    return summary


def _image_settings(settings: SourceSettings) -> dict[str, Any]:
    """The settings that decide which images there are, without those of the splits."""
    return {name: value for name, value in as_dict(settings).items() if name not in ("splits", "folds", "reading")}


@contextlib.contextmanager
def _reserve(output: str, job: dict[str, Any], overwrite: bool) -> Iterator[None]:
    """Reserves the folder for this job: writes the job into it, and locks it if it is local.

    Raises:
      UserError: the folder can't be written to, another process is writing there, or it has files of another job.
    """
    from tfx.dsl.io import fileio

    try:
        if is_remote(output):
            check_bucket(output)
        fileio.makedirs(output)
        lock = open(os.devnull if is_remote(output) else _in(output, _LOCK_FILE), "w")  # noqa: SIM115
    except Exception as error:  # each file system raises exceptions of its own
        if isinstance(error, UserError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{output}: can't be written ({reason}); give another --output") from error
    with lock:
        try:
            if not is_remote(output):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{output}: another fpn score is writing here; wait for its end, or give another --output"
            ) from error
        found = [name for name in _WRITTEN if fileio.exists(_in(output, name))]
        if found and not overwrite:
            _check_job(output, job)
        elif found:
            for name in found:
                place = _in(output, name)
                (fileio.rmtree if fileio.isdir(place) else fileio.remove)(place)
        _write_json(_in(output, JOB_FILE), job)
        yield


def _check_job(output: str, job: dict[str, Any]) -> None:
    from tfx.dsl.io import fileio

    cure = "give another --output, or --overwrite to delete them and start anew"
    if not fileio.exists(_in(output, JOB_FILE)):
        raise UserError(f"{output}: holds files that fpn score has not begun; {cure}")
    if not is_remote(output):
        check_regular(_in(output, JOB_FILE), "--output")
    with fileio.open(_in(output, JOB_FILE)) as file:
        earlier = parse_json_object(file.read(), _in(output, JOB_FILE), cure)
    if different := [text for key, text in _DIFFERENCES.items() if earlier.get(key) != job[key]]:
        raise UserError(f"{output}: holds answers {' and '.join(different)}; {cure}")


@contextlib.contextmanager
def _unwrap_user_error() -> Iterator[None]:
    """Raises a UserError itself, instead of the exception that Beam wraps around it."""
    try:
        yield
    except Exception as failure:
        if cause := user_error(failure):
            raise cause from failure
        raise


def _write_json(path: str, content: dict[str, Any]) -> None:
    from storage.files import replace_file

    replace_file(path, lambda file: file.write((json.dumps(content, indent=2) + "\n").encode()))


def _in(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"
