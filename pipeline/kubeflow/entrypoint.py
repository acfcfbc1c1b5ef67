"""Entry point of the containers on Kubeflow or Vertex AI Pipelines: converts what TFX's entry point can't read, and runs it.

The launcher of open-source Kubeflow Pipelines does not pass the types of inputs, adds an output for the log, and keeps local
copies of s3://, minio:// and gs:// below /s3, /minio and /gcs. Components work on these copies. On Vertex AI, and if a Beam
engine's workers run elsewhere, they read and write gs:// itself (`--direct_gcs`).
"""

import argparse
import json
import os
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from base.errors import UserError, shorten, user_error
from base.visible import print_error
from pipeline.config.network import BLESSED

_LOG_OUTPUT: Final = re.compile(r"executor-logs(-\d+)?")
_LOCAL: Final = {"s3://": "s3/", "minio://": "minio/", "gs://": "gcs/"}  # schemes, and the launcher's folders of local copies


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one task.

    Returns:
      Exit status: 0 done, 2 bad input, which the last line of the log explains, 1 anything else.
    """
    options, beam_options = _parser().parse_known_args(arguments)
    try:
        if options.lookup:
            _look_up(options)
        elif options.driver:
            _drive_only(options)
        else:
            _execute(options, beam_options)
    except Exception as failure:
        cause = user_error(failure)
        if cause is None:
            traceback.print_exc()
            return 1
        print_error(" ".join(str(cause).splitlines()))
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline.kubeflow.entrypoint", allow_abbrev=False)
    parser.add_argument("--executor_class_path", help="executor of the component")
    parser.add_argument("--json_serialized_invocation_args", required=True, help="ExecutorInput in JSON")
    parser.add_argument("--json_serialized_inputs_spec_args", help="ComponentInputsSpec in JSON")
    parser.add_argument("--lookup", action="store_true", help="tell what is there before the run, in place of an executor")
    parser.add_argument("--driver", action="store_true", help="run the ExampleGen's driver alone")
    parser.add_argument("--trainer_pods", help="the section `kubeflow` in JSON, if several pods train")
    parser.add_argument("--sample", help="known data set to write where the data is to be")
    parser.add_argument("--component", help="its name, by which its container differs from those of others")
    parser.add_argument(
        "--direct_gcs", action="store_true", help="read and write gs:// itself, not the launcher's local copies"
    )
    parser.add_argument("--local_root", default="/", help="folder of the launcher's local copies")
    return parser


def _look_up(options: argparse.Namespace) -> None:
    """Looks up what is there before the run, and writes each result into the file of its output parameter."""
    from tfx.utils import path_utils

    from components.earlier_runs.baseline import find_base_model, find_baseline
    from components.earlier_runs.state_folder import last_digest
    from images.dataset import source
    from images.settings import SourceSettings
    from models.packing import unpack

    invocation = json.loads(options.json_serialized_invocation_args)
    parameters = _parameters(invocation)
    if candidates := invocation["inputs"].get("artifacts"):
        (model,) = candidates["model"]["artifacts"]
        candidate = path_utils.serving_model_path(_Locations(options).local(model["uri"]))
        baseline = find_baseline(parameters["push_folder"], candidate)
        found = {"baseline": f"{baseline.path} {baseline.digest}" if baseline else "none"}
    else:
        folder = parameters["input_base"]
        _write_sample(options.sample, folder)
        found = {
            "data_fingerprint": source.fingerprint(folder, unpack(SourceSettings, parameters["settings"])),
            "last_statistics": last_digest(parameters["state"]),
        }
        if base_folder := parameters.get("base_model"):
            base = find_base_model(base_folder)
            found["base_model"] = f"{base.path} {base.digest}" if base else "none"
    for name, output in invocation["outputs"]["parameters"].items():
        path = Path(output["outputFile"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found[name])
        print(f"{name}: {found[name]}")


def _drive_only(options: argparse.Namespace) -> None:
    """Runs the driver only, and writes its result as an ExecutorOutput, as Vertex AI needs it."""
    invocation = json.loads(options.json_serialized_invocation_args)
    found = _run_driver(_parameters(invocation), options.sample)
    _write_output(invocation["outputs"]["outputFile"], {"parameterValues": found})


def _execute(options: argparse.Namespace, beam_options: list[str]) -> None:
    from absl import logging
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor

    from pipeline.dag.batch_bytes import bound_batches
    from pipeline.dag.beam_memory import remember

    inputs_spec = json.loads(options.json_serialized_inputs_spec_args)
    invocation = json.loads(options.json_serialized_invocation_args)
    output_file = invocation["outputs"]["outputFile"]
    locations = _Locations(options)
    work = _prepare(invocation, inputs_spec, locations)
    parameters = invocation["inputs"].setdefault("parameterValues", {})
    if "input_base" in parameters:
        found = _run_driver(parameters, options.sample)
        parameters.update(found)
        (examples,) = invocation["outputs"]["artifacts"]["examples"]["artifacts"]
        examples["metadata"] = {key: found[key] for key in ("span", "input_fingerprint")}
    _take_runtime_parameters(parameters)
    if options.trainer_pods:
        from pipeline.kubeflow.trainer_pods import RUN_FN, VARIABLE

        os.environ[VARIABLE] = options.trainer_pods
        parameters["run_fn"] = RUN_FN

    bound_batches()
    remember()
    logging.use_absl_handler()
    kubeflow_v2_run_executor.main(
        (
            argparse.Namespace(
                executor_class_path=options.executor_class_path,
                json_serialized_invocation_args=json.dumps(invocation),
                json_serialized_inputs_spec_args=options.json_serialized_inputs_spec_args,
            ),
            beam_options,
        )
    )
    _finish(invocation["outputs"], work, output_file, locations)


class _Locations:
    """Converts the backend's URIs to paths that TensorFlow and Beam can use, and back."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._folders = {
            scheme: os.path.join(options.local_root, folder)
            for scheme, folder in _LOCAL.items()
            if not (options.direct_gcs and scheme == "gs://")
        }

    def local(self, uri: str) -> str:
        for scheme, folder in self._folders.items():
            if uri.startswith(scheme):
                return folder + uri.removeprefix(scheme)
        return uri

    def remote(self, value: Any) -> Any:
        """The value with URIs in place of local paths, however deep inside of it these are."""
        if isinstance(value, dict):
            return {key: self.remote(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.remote(item) for item in value]
        if isinstance(value, str):
            for scheme, folder in self._folders.items():
                if value.startswith(folder):
                    return scheme + value.removeprefix(folder)
        return value


def _prepare(invocation: dict[str, Any], inputs_spec: dict[str, Any], locations: _Locations) -> str:
    """Changes an ExecutorInput in place, so that TFX's entry point can read it.

    Returns:
      Folder for temporary files; remote workers can reach it if they can reach the outputs.
    """
    from tfx.dsl.io import fileio

    outputs = invocation["outputs"]
    artifacts = outputs.get("artifacts", {})
    outputs["artifacts"] = {name: item for name, item in artifacts.items() if not _LOG_OUTPUT.fullmatch(name)}
    for name, item in invocation["inputs"].get("artifacts", {}).items():
        for artifact in item.get("artifacts", []):
            artifact["type"] = inputs_spec["artifacts"][name]["artifactType"]
            artifact["uri"] = locations.local(artifact["uri"])
    written = [artifact for item in outputs["artifacts"].values() for artifact in item["artifacts"]]
    for artifact in written:
        artifact["uri"] = locations.local(artifact["uri"])
        fileio.makedirs(artifact["uri"])
    work = os.path.join(os.path.dirname(written[0]["uri"]), ".work")
    outputs["outputFile"] = os.path.join(work, "executor_output.json")  # TFX makes its temporary folder beside this file
    return work


def _take_runtime_parameters(parameters: dict[str, Any]) -> None:
    """Moves runtime parameters into the settings that they belong to; drops those that only the cache needs."""
    from models.packing import pack, unpack

    for name in ("last_statistics", "baseline"):
        parameters.pop(name, None)
    looked_up = parameters.pop("base_model", None)
    if (epochs := parameters.pop("train_epochs", None)) is not None:
        if epochs < 1 or epochs != int(epochs):
            raise UserError(f"train_epochs: must be a whole number of 1 or more, is {epochs}")
        from models.settings import TrainerSettings

        trainer = unpack(TrainerSettings, parameters["custom_config"])
        trainer = replace(trainer, train=replace(trainer.train, epochs=int(epochs)))
        if trainer.base_model:
            base = _find_base_model(trainer.base_model, looked_up, needed=trainer.train.warm_start != BLESSED)
            trainer = replace(trainer, base_model=base)
        parameters["custom_config"] = pack(trainer)
    if (text := parameters.pop("thresholds", None)) is not None:
        from tfx.utils import proto_utils

        from evaluation.settings import EvaluatorSettings
        from pipeline.dag.eval_config import build_eval_config, with_thresholds

        try:
            thresholds = json.loads(text)
        except (ValueError, RecursionError) as error:
            form = '[{"metric": "accuracy", "lower": 0.9}]'
            raise UserError(f"thresholds: must be JSON as {form}, is {shorten(text, 300)}") from error
        settings = with_thresholds(unpack(EvaluatorSettings, parameters["settings"]), thresholds)
        parameters["settings"] = pack(settings)
        parameters["eval_config"] = proto_utils.proto_to_json(build_eval_config(settings))


def _find_base_model(folder: str, looked_up: str | None, needed: bool) -> str | None:
    """The folder of the model to start from: what Lookup has found, or what is there now where there is no such task."""
    if looked_up is None:
        from components.earlier_runs.baseline import find_base_model

        base = find_base_model(folder)
        found = base.path if base else ""
    else:
        found = looked_up.rpartition(" ")[0]
    if needed and not found:
        raise UserError(f"train.warm_start: {folder}: no SavedModel here; give the folder that a run has pushed to, or blessed")
    return found or None


def _run_driver(parameters: dict[str, Any], sample: str | None) -> dict[str, Any]:
    """The parameters that the ExampleGen's driver adds, such as the fingerprint of the data."""
    from components.image_example_gen.driver import Driver

    _write_sample(sample, parameters["input_base"])
    found = Driver(None).resolve_exec_properties(dict(parameters), None, None)
    return {key: found[key] for key in ("input_config", "span", "input_fingerprint")}


def _write_sample(sample: str | None, folder: str) -> None:
    if not sample or os.path.exists(folder):
        return
    from pipeline.samples.known import SAMPLES

    SAMPLES[sample](Path(folder))
    for path in Path(folder).rglob("*"):
        os.utime(path, (0, 0))  # for the same fingerprint in every container


def _finish(outputs: dict[str, Any], work: str, output_file: str, locations: _Locations) -> None:
    """Writes the ExecutorOutput where the launcher reads it, with URIs and without values that it can't take."""
    from tfx.dsl.io import fileio

    with fileio.open(outputs["outputFile"]) as file:
        output = locations.remote(json.load(file))
    for item in output.get("artifacts", {}).values():
        for artifact in item["artifacts"]:
            metadata = artifact.get("metadata", {})
            artifact["metadata"] = {key: value for key, value in metadata.items() if value is not None}
    _write_output(output_file, output)
    fileio.rmtree(work)
    if work.startswith("gs://"):
        from storage.files import remove_markers

        remove_markers(os.path.dirname(work))  # the next task's launcher would download them as files


def _write_output(path: str, output: dict[str, Any]) -> None:
    from tfx.dsl.io import fileio

    fileio.makedirs(os.path.dirname(path))
    with fileio.open(path, "w") as file:
        file.write(json.dumps(output))


def _parameters(invocation: dict[str, Any]) -> dict[str, Any]:
    return invocation["inputs"].get("parameterValues", {})


if __name__ == "__main__":
    sys.exit(main())
