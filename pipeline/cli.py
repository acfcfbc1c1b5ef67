"""The `fpn` command: parses, calls, prints. Imports what a command needs when it runs, so that `fpn --help` answers at once."""

import argparse
import atexit
import contextlib
import gc
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from pipeline.redirection import quiet_libraries
from pipeline.serving.options import add_arguments as add_serving_arguments

if TYPE_CHECKING:
    from pipeline.kubeflow_client import Backend
    from pipeline.kubeflow_file import PipelineFile


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0 done, 3 not blessed, 2 bad usage or input, 1 anything else."""
    options = _parser().parse_args(arguments)
    gc.set_threshold(50_000, 20, 20)  # TensorFlow and TFX make so many objects that collecting takes a tenth of the start-up
    try:
        return options.call(options)
    except UserError as error:
        print(f"fpn: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fpn", description="Trains, checks and ships image classifiers built on a Feature Pyramid Network."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="run the pipeline on this machine")
    _add_config_arguments(run)
    run.add_argument("--output", type=Path, metavar="DIR", help="folder for everything that the run writes (output/NAME)")
    run.add_argument("--json", action="store_true", help="print the summary as one JSON object on the last line")
    run.set_defaults(call=_run)

    data = commands.add_parser("data", help="check the data, and write a page about it")
    _add_config_arguments(data)
    data.add_argument("--output", type=Path, metavar="DIR", help="as for run, which finds the data checked (output/NAME)")
    data.add_argument("--html", type=Path, metavar="FILE", help="page to write (data.html in the output folder)")
    data.set_defaults(call=_data)

    preview = commands.add_parser("preview", help="draw augmented training images as the network sees them")
    _add_config_arguments(preview)
    preview.add_argument(
        "--output", type=Path, default=Path("preview.png"), metavar="FILE", help="PNG file to write (preview.png)"
    )
    preview.add_argument("--examples", type=int, default=8, metavar="N", help="training images to show, a row each (8)")
    preview.set_defaults(call=_preview)

    crossval = commands.add_parser("crossval", help="cross-validate by group: test each image once, by a model of the others")
    _add_config_arguments(crossval)
    crossval.add_argument("--output", type=Path, metavar="DIR", help="as for run; all is written below DIR/crossval")
    crossval.add_argument("--folds", type=int, default=5, metavar="K", help="parts of the data, 3 or more (5)")
    crossval.add_argument("--json", action="store_true", help="print the results as one JSON object on the last line")
    crossval.set_defaults(call=_crossval)

    compile_ = commands.add_parser("compile", help="compile the pipeline for Kubeflow Pipelines or Vertex AI")
    _add_config_arguments(compile_)
    compile_.add_argument("--output", type=Path, required=True, metavar="FILE", help="file to write, such as pipeline.yaml")
    compile_.add_argument("--target", choices=["kubeflow", "vertex"], default="kubeflow", help="where it will run (kubeflow)")
    compile_.set_defaults(call=_compile)

    runs = commands.add_parser("runs", help="list the runs so far")
    runs.add_argument("--output", type=Path, metavar="DIR", help="as for run; all below output/ if not given")
    runs.add_argument("--json", action="store_true", help="print all of it as one JSON object on the last line")
    runs.set_defaults(call=_runs)

    report = commands.add_parser("report", help="show a run's evaluation")
    report.add_argument(
        "folder", type=Path, metavar="DIR", help="an output folder (its latest run), a run in it, or a folder of TFMA results"
    )
    report.add_argument(
        "--compare", type=Path, metavar="DIR", help="another one: the differences to it, on the test images that both have seen"
    )
    report.add_argument("--output", type=Path, metavar="FILE.html", help="write the page that each run leaves, anew, here")
    report.set_defaults(call=_report)

    predict = commands.add_parser("predict", help="classify image files with a pushed model")
    predict.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="a pushed model, or the folder of its versions"
    )
    predict.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    predict.add_argument("--json", action="store_true", help="print all probabilities as one JSON object on the last line")
    predict.set_defaults(call=_predict)

    score = commands.add_parser("score", help="classify a whole data set with a pushed model, into tables")
    score.add_argument("--model", type=Path, required=True, metavar="DIR", help="a pushed model, or the folder of its versions")
    score.add_argument("--data", required=True, metavar="PATH", help="folder of images, labelled or not, or a manifest")
    score.add_argument("--output", required=True, metavar="DIR", help="folder for the tables; goes on with what is there")
    score.add_argument("--batch-size", type=int, metavar="N", help="images a step (score.batch_size)")
    score.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML file: its data columns, evaluate.groups, score and beam count"
    )
    score.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides", help="change a value of the file"
    )
    score.add_argument("--overwrite", action="store_true", help="start anew where the output folder holds something else")
    score.add_argument("--json", action="store_true", help="print the summary as one JSON object on the last line")
    score.set_defaults(call=_score)

    explain = commands.add_parser("explain", help="draw where a pushed model sees the evidence for its answers (Grad-CAM)")
    explain.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="a pushed model, or the folder of its versions"
    )
    explain.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    explain.add_argument(
        "--output", type=Path, default=Path("explanations"), metavar="DIR", help="folder for the overlays (explanations)"
    )
    explain.add_argument("--label", metavar="NAME", help="explain this class instead of the most probable")
    explain.add_argument("--json", action="store_true", help="print all figures as one JSON object on the last line")
    explain.set_defaults(call=_explain)

    push = commands.add_parser("push", help="list pushed versions, go back to an earlier one, or register one with MLflow")
    push.add_argument("--to", required=True, metavar="DIR", help="the folder of the versions, or its URI")
    what = push.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="list the versions")
    what.add_argument("--register", action="store_true", help="register the newest version, or --version, with MLflow")
    push.add_argument("--version", type=int, metavar="V", help="serve this version again: a copy of it becomes the newest")
    push.add_argument("--config", type=Path, metavar="FILE", help="that has push.registry; the version's own if not given")
    push.add_argument("--json", action="store_true", help="print the result as one JSON object on the last line")
    push.set_defaults(call=_push)

    serve = commands.add_parser("serve", help="serve a pushed model over HTTP, with a page to try it")
    add_serving_arguments(serve)
    serve.set_defaults(call=_serve)

    deploy = commands.add_parser("deploy", help="run the pipeline on Kubeflow Pipelines")
    _add_server_arguments(deploy)
    deploy.add_argument("--wait", action="store_true", help="follow the run to its end; exit by its result, 0 or 1")
    deploy.set_defaults(call=_deploy)

    schedule = commands.add_parser("schedule", help="let Kubeflow Pipelines run the pipeline again and again")
    _add_server_arguments(schedule)
    schedule.add_argument("--name", metavar="NAME", help="of the schedule, which replaces one of that name (the pipeline's)")
    what = schedule.add_mutually_exclusive_group(required=True)
    what.add_argument("--cron", metavar="CRON", help="minute, hour, day, month, weekday, such as '0 9 * * 1'; or seconds first")
    what.add_argument("--interval", type=int, metavar="SECONDS", help="seconds from one start to the next")
    what.add_argument("--delete", action="store_true", help="delete the schedule")
    schedule.set_defaults(call=_schedule)

    lint = commands.add_parser("lint", help="check a compiled pipeline against the rules of Kubeflow Pipelines")
    lint.add_argument("pipeline", type=Path, metavar="FILE.yaml", help="as fpn compile writes it")
    lint.set_defaults(call=_lint)
    return parser


def _add_server_arguments(parser: argparse.ArgumentParser) -> None:
    pipeline = parser.add_mutually_exclusive_group(required=True)
    pipeline.add_argument("--config", type=Path, metavar="FILE", help="YAML file, such as configs/digits.yaml; compiled first")
    pipeline.add_argument("--pipeline", type=Path, metavar="FILE.yaml", help="compiled already, by fpn compile")
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
    credentials.add_argument("--token-file", type=Path, metavar="FILE", help="file with a bearer token")
    credentials.add_argument("--in-cluster", action="store_true", help="use the address and the token that a pod has")
    parser.add_argument("--ca-file", type=Path, metavar="FILE", help="certificates to trust instead of the public ones")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on the last line")


def _add_config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="YAML file, such as configs/digits.yaml")
    parser.add_argument("--data", metavar="PATH", help="folder of images, instead of data.path in the file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides", help="change a value of the file"
    )


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console

    from pipeline import local_runner
    from pipeline.config import load_config
    from pipeline.report import print_summary

    config = load_config(options.config, options.data, options.overrides)
    result = local_runner.run(config, options.output or Path("output") / config.name)
    print_summary(result, Console(highlight=False, soft_wrap=True))
    if result.error:
        print(f"fpn: {result.error}", file=sys.stderr)
    if options.json:
        print(json.dumps(result.summary))
    return result.status


def _data(options: argparse.Namespace) -> int:
    from pipeline import local_runner
    from pipeline.config import load_config

    config = load_config(options.config, options.data, options.overrides)
    output = options.output or Path("output") / config.name
    page = options.html or output / "data.html"
    status, error = local_runner.inspect(config, output, page)
    print(f"fpn: {error}" if error else page, file=sys.stderr if error else sys.stdout)
    return status


def _preview(options: argparse.Namespace) -> int:
    from pipeline.config import load_config
    from pipeline.preview import write_preview

    config = load_config(options.config, options.data, options.overrides)
    with quiet_libraries():
        write_preview(config, options.examples, options.output)
    print(options.output)
    return 0


def _crossval(options: argparse.Namespace) -> int:
    from rich.console import Console

    from pipeline import crossval
    from pipeline.config import load_config
    from pipeline.report import print_crossval

    config = load_config(options.config, options.data, options.overrides)
    result = crossval.run(config, options.output or Path("output") / config.name, options.folds)
    print_crossval(result, Console(highlight=False))
    if result.error:
        print(f"fpn: {result.error}", file=sys.stderr)
    if options.json:
        print(json.dumps(result.summary))
    return result.status


def _compile(options: argparse.Namespace) -> int:
    from pipeline.config import load_config
    from pipeline.kubeflow_runner import compile_pipeline

    config = load_config(options.config, options.data, options.overrides)
    with quiet_libraries():
        notes = compile_pipeline(config, options.output, options.target)
    for note in notes:
        print(f"fpn: {note}", file=sys.stderr)
    print(options.output)
    return 0


def _runs(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from rich.console import Console

    from pipeline.report import render_runs, short_path
    from pipeline.runs import read_runs

    outputs = [options.output] if options.output else sorted(path.parent for path in Path("output").glob("*/runs"))
    found = {output: runs for output in outputs if (runs := read_runs(output))}
    if not found:
        raise UserError(f"{options.output or 'output'}: no runs here; start one with fpn run --config configs/digits.yaml")
    console = Console(highlight=False)
    for output, runs in found.items():
        data = next((run.data for run in runs if run.data), "")
        console.print(render_runs(runs, f"{short_path(output)}, from {short_path(data)}" if data else short_path(output)))
    if options.json:
        print(json.dumps({"runs": [{"output": str(output), **asdict(run)} for output, runs in found.items() for run in runs]}))
    return 0


def _report(options: argparse.Namespace) -> int:
    from rich.console import Console

    from pipeline.report import render_comparison, render_evaluation, render_training
    from pipeline.runs import find_evaluation

    found = find_evaluation(options.folder)
    other = find_evaluation(options.compare) if options.compare else None
    if options.output and other:
        raise UserError("--output and --compare: give one of them")
    if options.output and not found.run:
        raise UserError(f"{options.folder}: a page tells of a run; give the output folder of one, such as output/digits")
    with quiet_libraries():
        if other:
            from pipeline.comparison import compare

            shown = [render_comparison(compare(found, other))]
        elif options.output and found.run:
            from pipeline.run_page import write_run_page

            write_run_page(found.run, options.output)
            shown = [str(options.output)]
        else:
            from components.evaluator.results import read_evaluation

            shown = [render_evaluation(read_evaluation(str(found.folder))), render_training(found.training)]
    Console(highlight=False, soft_wrap=bool(options.output)).print(*shown)
    return 0


def _predict(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from pipeline.prediction import format_answer, predict

    with quiet_libraries():
        predictions = predict(options.model, options.images)
    table = Table("image", "label", "probability")
    for item in predictions:
        table.add_row(item["image"], *format_answer(item["label"], item["probabilities"], ".4f"))
    Console(highlight=False).print(table)
    if options.json:
        print(json.dumps({"predictions": predictions}))
    return 0


def _score(options: argparse.Namespace) -> int:
    from rich.console import Console

    from pipeline.config import load_config
    from pipeline.report import print_scores
    from pipeline.scoring import score

    folder, overrides = options.data, list(options.overrides)
    if folder.lower().endswith((".csv", ".parquet")):
        folder, _, manifest = folder.rpartition("/")
        folder = folder or "."
        overrides.append(f"data.manifest={json.dumps(manifest)}")
    if options.batch_size is not None:
        overrides.append(f"score.batch_size={options.batch_size}")
    config = load_config(options.config, folder, overrides)
    with quiet_libraries() as screen:
        summary = score(config, options.model, options.output, Console(file=screen), overwrite=options.overwrite)
    print_scores(summary, Console(highlight=False, soft_wrap=True))
    if options.json:
        print(json.dumps(summary))
    return 0


def _explain(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from pipeline.explanation import as_json, explain, format_share, write_overlay

    with quiet_libraries():
        explanations = [
            as_json(item, write_overlay(item, options.output)) for item in explain(options.model, options.images, options.label)
        ]
    table = Table("image", "label", "probability", *explanations[0]["shares"], "overlay")
    for item in explanations:
        shares = [format_share(share) for share in item["shares"].values()]
        probability = f"{item['probabilities'][item['explained']]:.4f}"
        table.add_row(item["image"], item["explained"], probability, *shares, Path(item["overlay"]).name)
    table.columns[0].overflow = "fold"  # a name that is cut short can't be found
    table.columns[-1].no_wrap = True
    console = Console(highlight=False, soft_wrap=True)
    console.print(table, soft_wrap=False)
    console.print(f"Overlays in {options.output}; shares are of the evidence for (+) and against (-) the label.")
    if options.json:
        print(json.dumps({"explanations": explanations}))
    return 0


def _push(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from rich.console import Console

    from components.pusher.versions import list_versions, roll_back
    from pipeline.report import render_versions

    if not options.register and options.list == (options.version is not None):
        raise UserError("push: give --list, --version V or --register")
    if options.register:
        return _register(options)
    if options.list:
        versions = list_versions(options.to)
        Console(highlight=False).print(render_versions(versions, options.to))
        result: dict[str, Any] = {"versions": [asdict(version) for version in versions]}
    else:
        made = roll_back(options.to, options.version)
        print(f"{made.path}: a copy of {options.version}, is served from now on")
        result = {"version": asdict(made)}
    if options.json:
        print(json.dumps(result))
    return 0


def _register(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from pipeline.registry import register_version

    with quiet_libraries():
        found = register_version(options.to, options.version, options.config)
    print(f"{found.uri}: version {found.version} of {found.model}" + ("" if found.created else ", there already"))
    if options.json:
        print(json.dumps({"registered": asdict(found)}))
    return 0


def _serve(options: argparse.Namespace) -> int:
    from pipeline.serving.launch import serve

    serve(options)
    return 0


def _deploy(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from rich.console import Console

    from pipeline.kubeflow_client import SUCCEEDED

    console = Console(highlight=False, soft_wrap=True)
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
                print(f"fpn: no longer waiting; the run goes on: {run.url}", file=sys.stderr)
                return 1
            status = 0 if progress.state == SUCCEEDED else 1
            result |= asdict(progress)
    if options.json:
        print(json.dumps(result))
    return status


def _schedule(options: argparse.Namespace) -> int:
    from pipeline.kubeflow_client import check_cron

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
    from pipeline.kubeflow_client import Backend
    from pipeline.kubeflow_file import read_pipeline_file
    from pipeline.kubeflow_lint import lint

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
            from pipeline.config import load_config
            from pipeline.kubeflow_runner import compile_pipeline

            path = Path(folder) / "pipeline.yaml"
            config = load_config(options.config, options.data, options.overrides)
            with quiet_libraries():
                notes = compile_pipeline(config, path)
            for note in notes:
                print(f"fpn: {note}", file=sys.stderr)
        breaches = lint(path)
        if breaches:
            raise UserError(f"{path}: {breaches[0]}\n{len(breaches)} in all; see them with fpn lint FILE.yaml")
        file = read_pipeline_file(path)
        yield backend, file, file.values(options.parameter)


def _lint(options: argparse.Namespace) -> int:
    from pipeline.kubeflow_file import read_pipeline_file
    from pipeline.kubeflow_lint import lint

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


def run_and_exit() -> None:
    """`main` as a process, which ends at once: to free what TensorFlow and TFX have made, object by object, takes a second."""
    status = main()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    run_and_exit()
