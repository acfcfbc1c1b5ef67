"""Commands that bring the pipeline to Kubeflow Pipelines or Vertex AI."""

import argparse
import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from base.errors import INTERRUPTED, UserError
from base.paths import home_path
from base.redirection import quiet_libraries
from base.visible import print_error
from pipeline.commands.options import add_config_arguments
from pipeline.config.choices import PipelineName, Target

if TYPE_CHECKING:
    from pipeline.kubeflow.client import Backend
    from pipeline.kubeflow.file import PipelineFile


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds compile, deploy, schedule, lint."""
    for add in (_add_compile, _add_deploy, _add_schedule, _add_lint):
        add(commands)


def _add_compile(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    compile_ = commands.add_parser("compile", help="compile the pipeline for Kubeflow Pipelines or Vertex AI")
    add_config_arguments(compile_)
    compile_.add_argument(
        "--output", type=home_path, required=True, metavar="FILE", help="file to write, such as pipeline.yaml"
    )
    compile_.add_argument("--target", choices=get_args(Target), default="kubeflow", help="where it will run (kubeflow)")
    compile_.add_argument(
        "--pipeline",
        choices=get_args(PipelineName),
        default="training",
        help="or monitor, which checks what is pushed (training)",
    )
    compile_.set_defaults(call=_compile)


def _add_deploy(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    deploy = commands.add_parser("deploy", help="run the pipeline on Kubeflow Pipelines")
    _add_server_arguments(deploy)
    deploy.add_argument("--wait", action="store_true", help="follow the run to its end; exit by its result, 0 or 1")
    deploy.set_defaults(call=_deploy)


def _add_schedule(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    schedule = commands.add_parser("schedule", help="let Kubeflow Pipelines run the pipeline again and again")
    _add_server_arguments(schedule)
    schedule.add_argument("--name", metavar="NAME", help="of the schedule, which replaces one of that name (the pipeline's)")
    what = schedule.add_mutually_exclusive_group(required=True)
    what.add_argument("--cron", metavar="CRON", help="minute, hour, day, month, weekday, such as '0 9 * * 1'; or seconds first")
    what.add_argument("--interval", type=int, metavar="SECONDS", help="seconds from one start to the next")
    what.add_argument("--delete", action="store_true", help="delete the schedule")
    schedule.set_defaults(call=_schedule)


def _add_lint(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    lint = commands.add_parser("lint", help="check a compiled pipeline against the rules of Kubeflow Pipelines")
    lint.add_argument("pipeline", type=home_path, metavar="FILE.yaml", help="as fpn compile writes it")
    lint.set_defaults(call=_lint)


def _add_server_arguments(parser: argparse.ArgumentParser) -> None:
    pipeline = parser.add_mutually_exclusive_group(required=True)
    pipeline.add_argument(
        "--config", type=home_path, metavar="FILE", help="YAML file, such as configs/digits.yaml; compiled first"
    )
    pipeline.add_argument("--pipeline", type=home_path, metavar="FILE.yaml", help="compiled already, by fpn compile")
    parser.add_argument("--data", metavar="PATH", help="URI of the images, instead of data.path in the file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides", help="change a value of the file"
    )
    parser.add_argument(
        "--parameter", action="append", default=[], metavar="NAME=VALUE", help="value of a runtime parameter of the pipeline"
    )
    parser.add_argument("--endpoint", metavar="URL", help="address of Kubeflow Pipelines, such as http://localhost:8080")
    parser.add_argument("--namespace", metavar="NS", help="a user's, where the server has several")
    parser.add_argument("--experiment", metavar="NAME", help="group of runs; made if not there (the pipeline's name)")
    credentials = parser.add_mutually_exclusive_group()
    credentials.add_argument("--token-file", type=home_path, metavar="FILE", help="file with a bearer token")
    credentials.add_argument("--in-cluster", action="store_true", help="use the address and the token that a pod has")
    parser.add_argument("--ca-file", type=home_path, metavar="FILE", help="certificates to trust instead of the public ones")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on the last line")


def _compile(options: argparse.Namespace) -> int:
    _write_pipeline(options, options.output, options.target, options.pipeline)
    print(options.output)
    return 0


def _write_pipeline(
    options: argparse.Namespace, output: Path, target: Target = "kubeflow", pipeline: PipelineName = "training"
) -> None:
    """Compiles the configuration that the options name, and prints what the user should know of it."""
    from pipeline.config.loading import load_config
    from pipeline.kubeflow.compiler import compile_pipeline

    config = load_config(options.config, options.data, options.overrides)
    with quiet_libraries():
        notes = compile_pipeline(config, output, target, pipeline)
    for note in notes:
        print_error(note)


def _deploy(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from pipeline.kubeflow.client import SUCCEEDED
    from pipeline.terminal.console import plain_console

    console = plain_console(soft_wrap=True)
    with _pipeline_on_server(options) as (backend, file, values):
        version = backend.upload(file)
        console.print(f"{version.name}: " + ("uploaded" if version.uploaded else "on the server already"))
        run = backend.start(version, file, options.experiment or file.name, values)
        console.print(run.url)
        result = {"pipeline": file.name, "version": asdict(version), "run": asdict(run), "parameters": values}
        status = 0
        if options.wait:
            try:
                progress = backend.follow(run, file.tasks, console)
            except KeyboardInterrupt:
                print_error(f"no longer waiting; the run goes on: {run.url}")
                return INTERRUPTED
            status = 0 if progress.state == SUCCEEDED else 1
            result |= asdict(progress)
    if options.json:
        print(json.dumps(result))
    return status


def _schedule(options: argparse.Namespace) -> int:
    from pipeline.kubeflow.client import check_cron

    cron = check_cron(options.cron) if options.cron else None
    if options.interval is not None and options.interval < 1:
        raise UserError(f"--interval {options.interval}: must be 1 second or more")
    with _pipeline_on_server(options) as (backend, file, values):
        name = options.name or file.name
        if options.delete:
            count = backend.unschedule(name)
            if not count:
                raise UserError(f"{name}: there is no schedule of this name")
            print(f"{name}: deleted")
            result = {"name": name, "deleted": count}
        else:
            version = backend.upload(file)
            recurring_run, replaced = backend.schedule(
                version, file, options.experiment or file.name, values, name=name, cron=cron, interval=options.interval
            )
            print(f"{name}: {'replaced' if replaced else 'created'}, {version.name}, {cron or f'every {options.interval} s'}")
            result = {"name": name, "recurring_run_id": recurring_run, "replaced": replaced, "version": version.name}
    if options.json:
        print(json.dumps(result))
    return 0


@contextlib.contextmanager
def _pipeline_on_server(options: argparse.Namespace) -> Iterator[tuple["Backend", "PipelineFile", dict[str, Any]]]:
    """The server, a checked pipeline, and the values of its runtime parameters."""
    from pipeline.kubeflow.client import Backend
    from pipeline.kubeflow.file import read_pipeline_file
    from pipeline.kubeflow.lint import lint

    backend = Backend(
        options.endpoint,
        namespace=options.namespace,
        token_file=options.token_file,
        in_cluster=options.in_cluster,
        ca_file=options.ca_file,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = options.pipeline
        if path and (options.overrides or options.data):
            raise UserError("--set and --data: change a configuration; with --pipeline, give --parameter NAME=VALUE")
        if not path:
            path = Path(folder) / "pipeline.yaml"
            _write_pipeline(options, path)
        breaches = lint(path)
        if breaches:
            raise UserError(f"{path}: {breaches[0]}\n{len(breaches)} in all; see them with fpn lint FILE.yaml")
        file = read_pipeline_file(path)
        yield backend, file, file.values(options.parameter)


def _lint(options: argparse.Namespace) -> int:
    from pipeline.kubeflow.file import read_pipeline_file
    from pipeline.kubeflow.lint import lint

    breaches = lint(options.pipeline)
    for breach in breaches:
        print(f"{options.pipeline}: {breach}")
    if breaches:
        return 2
    file = read_pipeline_file(options.pipeline)
    for name in file.required:
        print(f"{options.pipeline}: {name} has no default; give --parameter {name}=VALUE to deploy and schedule")
    print(f"{options.pipeline}: {len(file.tasks)} tasks, no breach")
    return 0
