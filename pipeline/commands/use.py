"""Commands that use a pushed model, and those that say which one that is."""

import argparse
import json
import os.path
from pathlib import Path
from typing import TYPE_CHECKING, Any

from base.errors import UserError
from base.paths import home_path
from base.redirection import quiet_libraries
from base.visible import print_error
from pipeline.serving.options import add_arguments as add_serving_arguments
from pipeline.serving.options import add_signature_argument

if TYPE_CHECKING:
    from pipeline.config.whole import Config
    from pipeline.pushed.pushed_model import Failure


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds predict, score, similar, map, label-next, explain, push, serve, monitor."""
    for add in (
        _add_predict,
        _add_score,
        _add_similar,
        _add_map,
        _add_label_next,
        _add_explain,
        _add_push,
        _add_serve,
        _add_monitor,
    ):
        add(commands)


def _add_predict(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    predict = commands.add_parser("predict", help="classify image files with a pushed model")
    _add_model_arguments(predict)
    predict.add_argument("images", type=home_path, nargs="+", metavar="IMAGE")
    predict.add_argument("--json", action="store_true", help="print all probabilities as one JSON object on the last line")
    predict.set_defaults(call=_predict)


def _add_score(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    score = commands.add_parser("score", help="classify a whole data set with a pushed model, into tables")
    _add_pool_arguments(score)
    score.add_argument(
        "--output",
        type=os.path.expanduser,
        required=True,
        metavar="DIR",
        help="folder for the tables; goes on with what is there",
    )
    score.add_argument("--embeddings", action="store_true", help="write the images' embeddings, too (score.embeddings)")
    score.add_argument("--overwrite", action="store_true", help="start anew where the output folder holds something else")
    score.add_argument("--json", action="store_true", help="print the summary as one JSON object on the last line")
    score.set_defaults(call=_score)


def _add_model_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model", type=home_path, required=True, metavar="DIR", help="a pushed model, or the folder of its versions"
    )
    add_signature_argument(command)


def _add_pool_arguments(command: argparse.ArgumentParser) -> None:
    _add_model_arguments(command)
    command.add_argument("--data", required=True, metavar="PATH", help="folder of images, labelled or not, or a manifest")
    command.add_argument("--batch-size", type=int, metavar="N", help="images per step (score.batch_size)")
    command.add_argument(
        "--config", type=home_path, metavar="FILE", help="YAML file: its data columns, evaluate.groups, score and beam count"
    )
    command.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides", help="change a value of the file"
    )


def _add_label_next(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    label_next = commands.add_parser("label-next", help="choose the images whose labels would teach a pushed model the most")
    _add_pool_arguments(label_next)
    label_next.add_argument("--number", type=int, default=200, metavar="N", help="images to choose (200)")
    label_next.add_argument(
        "--output",
        type=home_path,
        required=True,
        metavar="FILE.csv",
        help="the list; a page and files for labelling tools are beside it",
    )
    label_next.add_argument(
        "--overwrite", action="store_true", help="lose a list with labels, and answers of other data, that are there"
    )
    label_next.add_argument("--json", action="store_true", help="print the result as one JSON object on the last line")
    label_next.set_defaults(call=_label_next)


def _add_similar(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    similar = commands.add_parser("similar", help="find the images of a data set that are most like others")
    _add_scores(similar)
    similar.add_argument(
        "images", type=os.path.expanduser, nargs="+", metavar="IMAGE", help="its path in the data set, or any other image file"
    )
    similar.add_argument("--number", type=int, default=10, metavar="N", help="images to find for each (10)")
    similar.add_argument("--json", action="store_true", help="print them as one JSON object on the last line")
    similar.set_defaults(call=_similar)


def _add_map(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    dataset_map = commands.add_parser("map", help="draw a data set as a map, and find its outliers and near duplicates")
    _add_scores(dataset_map)
    dataset_map.add_argument(
        "--output", type=home_path, required=True, metavar="DIR", help="folder for the page and the tables"
    )
    dataset_map.add_argument(
        "--run", type=home_path, metavar="DIR", help="output folder of a run of the same data: shows its splits"
    )
    dataset_map.add_argument("--points", type=int, default=10_000, metavar="N", help="images on the map (10000)")
    dataset_map.add_argument("--json", action="store_true", help="print the numbers as one JSON object on the last line")
    dataset_map.set_defaults(call=_map)


def _add_scores(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--scores", type=home_path, required=True, metavar="DIR", help="what fpn score --embeddings has written"
    )


def _add_explain(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    explain = commands.add_parser("explain", help="draw where a pushed model sees the evidence for its answers (Grad-CAM)")
    _add_model_arguments(explain)
    explain.add_argument("images", type=home_path, nargs="+", metavar="IMAGE")
    explain.add_argument(
        "--output", type=home_path, default=Path("explanations"), metavar="DIR", help="folder for the overlays (explanations)"
    )
    explain.add_argument("--label", metavar="NAME", help="explain this class instead of the most probable")
    explain.add_argument("--json", action="store_true", help="print all figures as one JSON object on the last line")
    explain.set_defaults(call=_explain)


def _add_push(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    push = commands.add_parser("push", help="list pushed versions, go back to an earlier one, sign one, or tell MLflow")
    push.add_argument(
        "--to", type=os.path.expanduser, required=True, metavar="DIR", help="the folder of the versions, or its URI"
    )
    what = push.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="list the versions")
    what.add_argument("--register", action="store_true", help="register the newest version, or --version, with MLflow")
    what.add_argument(
        "--sign", type=home_path, metavar="FILE", help="sign the newest version, or --version, with this private key"
    )
    push.add_argument("--version", type=int, metavar="V", help="serve this version again: a copy of it becomes the newest")
    push.add_argument("--config", type=home_path, metavar="FILE", help="that has push.registry; the version's own if not given")
    push.add_argument("--json", action="store_true", help="print the result as one JSON object on the last line")
    push.set_defaults(call=_push)


def _add_serve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    serve = commands.add_parser("serve", help="serve a pushed model over HTTP, with a page to try it")
    add_serving_arguments(serve)
    serve.set_defaults(call=_serve)


def _add_monitor(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    monitor = commands.add_parser("monitor", help="check whether what a served model is asked, and answers, has changed")
    monitor.add_argument(
        "--model", type=home_path, required=True, metavar="DIR", help="a pushed model, or the folder of its versions"
    )
    add_signature_argument(monitor)
    monitor.add_argument(
        "--captured",
        type=home_path,
        required=True,
        metavar="DIR",
        help="the folder of fpn serve --capture, or TensorFlow Serving's request log",
    )
    monitor.add_argument("--since", default="7d", metavar="TIME", help="such as 7d, 12h, 2026-11-30T07:00, or all (7d)")
    monitor.add_argument(
        "--reference",
        type=_path_or_none,
        metavar="RUN",
        help="folder of the run that made the model, or of its examples (found if it is here)",
    )
    monitor.add_argument(
        "--labels", type=_path_or_none, metavar="FILE", help="CSV of true labels: label, and content_hash or request and row"
    )
    monitor.add_argument(
        "--output", type=_path_or_none, metavar="DIR", help="folder for monitor.html and monitor.json (that of --captured)"
    )
    monitor.add_argument("--json", action="store_true", help="print the result as one JSON object on the last line")
    monitor.set_defaults(call=_monitor)


def _path_or_none(text: str) -> Path | None:
    """None for the empty text, which a parameter of Kubeflow has if it is not given."""
    return home_path(text) if text else None


def _predict(options: argparse.Namespace) -> int:
    from rich.table import Table

    from pipeline.pushed.prediction import format_answer, predict
    from pipeline.terminal.console import plain_console

    with quiet_libraries():
        predictions, failures = predict(options.model, options.images, options.require_signature)
    with_sets = any("label_set" in item for item in predictions)
    with_unusual = any("unusual" in item for item in predictions)
    table = Table("image", "label", "probability", *(["set"] if with_sets else []), *(["unusual"] if with_unusual else []))
    for item in predictions:
        names = [", ".join(item["label_set"]) or "(none)"] if with_sets else []
        unusual = [f"{item['unusual']:.1f}"] if with_unusual else []
        table.add_row(item["image"], *format_answer(item["label"], item["probabilities"], ".4f"), *names, *unusual)
    if predictions:
        plain_console().print(table)
    return _tell_failures(failures, {"predictions": predictions} if options.json else None)


def _pool_config(options: argparse.Namespace, *overrides: str) -> "Config":
    from pipeline.config.loading import load_config

    folder, changes = options.data, [*options.overrides, *overrides]
    if folder.lower().endswith((".csv", ".tsv", ".jsonl", ".parquet")):
        folder, _, manifest = folder.rpartition("/")
        folder = folder or "."
        changes.append(f"data.manifest={json.dumps(manifest)}")
    if options.batch_size is not None:
        changes.append(f"score.batch_size={options.batch_size}")
    return load_config(options.config, folder, changes)


def _score(options: argparse.Namespace) -> int:
    from pipeline.pushed.scoring import score
    from pipeline.terminal.console import plain_console
    from pipeline.terminal.tables import print_scores

    config = _pool_config(options, *(["score.embeddings=true"] if options.embeddings else []))
    with quiet_libraries() as screen:
        summary = score(
            config,
            options.model,
            options.output,
            plain_console(screen),
            overwrite=options.overwrite,
            public_key=options.require_signature,
        )
    print_scores(summary, plain_console(soft_wrap=True))
    if options.json:
        print(json.dumps(summary))
    return _tell_rejected(summary["rejected"], summary["images"], options.output)


def _label_next(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from base.paths import short_path
    from pipeline.terminal.console import plain_console

    if options.number < 1:
        raise UserError(f"--number {options.number}: give 1 or more")
    if options.output.suffix.lower() != ".csv":
        raise UserError(f"--output {options.output}: give the name of a table, such as next.csv")
    config = _pool_config(options, "score.embeddings=true")
    with quiet_libraries() as screen:
        from pipeline.local.label_next import label_next

        result = label_next(
            config,
            options.model,
            options.number,
            options.output,
            plain_console(screen),
            overwrite=options.overwrite,
            public_key=options.require_signature,
        )
    print(f"{result.chosen:,} of {result.unlabelled:,} images without a label")
    for path in result.files.values():
        print(short_path(Path(path)))
    if options.json:
        print(json.dumps(asdict(result)))
    return _tell_rejected(result.rejected, result.images, str(options.output.with_suffix(".scores")))


def _tell_rejected(rejected: int, answered: int, output: str) -> int:
    """Says how many files have no answer, if any. Returns the exit status."""
    if not rejected:
        return 0
    files = f"{rejected} of {rejected + answered} files"
    print_error(f"{files} have no answer; {output.rstrip('/')}/rejected.csv has the reasons")
    return 2


def _similar(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from rich.table import Table

    from pipeline.pushed.embeddings import read_embedded
    from pipeline.pushed.similar import find_similar
    from pipeline.terminal.console import plain_console

    if options.number < 1:
        raise UserError(f"--number {options.number}: give 1 or more")
    with quiet_libraries():
        found, failures = find_similar(read_embedded(options.scores), options.images, options.number)
    table = Table("image", "like it", "label", "cosine")
    for name, others in found.items():
        for number, item in enumerate(others):
            table.add_row("" if number else name, item.path, item.label, f"{item.cosine:.4f}", end_section=item is others[-1])
    if found:
        plain_console().print(table)
    similar = [{"image": name, "similar": [asdict(item) for item in others]} for name, others in found.items()]
    return _tell_failures(failures, {"images": similar} if options.json else None)


def _map(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from base.paths import short_path
    from pipeline.pushed.embeddings import read_embedded
    from pipeline.terminal.console import plain_console
    from pipeline.terminal.progress import waiting

    if options.points < 10:
        raise UserError(f"--points {options.points}: give 10 or more")
    with quiet_libraries() as screen, waiting(plain_console(screen), "drawing the map"):
        from pipeline.local.dataset_map import PAGE, write_map

        result = write_map(read_embedded(options.scores), options.output, options.points, options.run)
    print(f"{result.images:,} images, {result.outliers:,} outliers, {result.pairs:,} pairs of near duplicates")
    print(short_path(options.output / PAGE))
    if options.json:
        print(json.dumps({**asdict(result), "page": str(options.output / PAGE)}))
    return 0


def _explain(options: argparse.Namespace) -> int:
    from pipeline.pushed.explanation import as_json, explain, write_overlay

    with quiet_libraries():
        found, failures = explain(options.model, options.images, options.label, options.require_signature)
        explanations = [as_json(item, write_overlay(item, options.output)) for item in found]
    if explanations:
        _print_explanations(explanations, options.output)
    return _tell_failures(failures, {"explanations": explanations} if options.json else None)


def _print_explanations(explanations: list[dict[str, Any]], output: Path) -> None:
    from rich.table import Table

    from pipeline.pushed.explanation import format_share
    from pipeline.terminal.console import plain_console

    table = Table("image", "label", "probability", *explanations[0]["shares"], "overlay")
    for item in explanations:
        shares = [format_share(share) for share in item["shares"].values()]
        probability = f"{item['probabilities'][item['explained']]:.4f}"
        table.add_row(item["image"], item["explained"], probability, *shares, Path(item["overlay"]).name)
    table.columns[0].overflow = "fold"  # a name that is cut short can't be found
    table.columns[-1].no_wrap = True
    console = plain_console(soft_wrap=True)
    console.print(table, soft_wrap=False)
    console.print(f"Overlays in {output}; shares are of the evidence for (+) and against (-) the label.")


def _tell_failures(failures: "list[Failure]", result: dict[str, Any] | None) -> int:
    """Names the files that can't be read; prints the result, with them, as JSON. Returns the exit status."""
    for failure in failures:
        print_error(failure)
    if result is not None:
        told = [{"image": str(failure.image), "reason": failure.reason} for failure in failures]
        print(json.dumps({**result, "failures": told}))
    return 2 if failures else 0


def _push(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from components.pusher.versions import list_versions, roll_back, sign
    from pipeline.terminal.console import plain_console
    from pipeline.terminal.runs import render_versions

    if not options.register and not options.sign and options.list == (options.version is not None):
        raise UserError("push: give --list, --version V, --sign FILE or --register")
    if options.register:
        return _register(options)
    if options.list:
        versions = list_versions(options.to)
        plain_console().print(render_versions(versions, options.to))
        result: dict[str, Any] = {"versions": [asdict(version) for version in versions]}
    elif options.sign:
        signed = sign(options.to, options.version, options.sign)
        print(f"{signed.path}: signed with {options.sign}")
        result = {"version": asdict(signed)}
    else:
        made = roll_back(options.to, options.version)
        print(f"{made.path}: a copy of {options.version}, is served from now on")
        result = {"version": asdict(made)}
    if options.json:
        print(json.dumps(result))
    if options.list and versions and versions[-1].problem:
        newest = versions[-1]
        cure = f"go back to an intact one: fpn push --to {options.to} --version V"
        print_error(f"{newest.path}: the newest version is damaged ({newest.problem}); {cure}")
        return 1
    return 0


def _register(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from pipeline.pushed.registry import register_version

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


def _monitor(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from pipeline.terminal.console import plain_console
    from pipeline.terminal.progress import waiting
    from pipeline.terminal.tables import print_checks

    with quiet_libraries() as screen, waiting(plain_console(screen), "comparing"):
        from pipeline.local.monitor import monitor

        result = monitor(
            options.model,
            options.captured,
            options.since,
            options.reference,
            options.labels,
            options.output,
            options.require_signature,
        )
    print_checks(result.checks, result.rows, plain_console(soft_wrap=True))
    print(result.page)
    if options.json:
        print(json.dumps(asdict(result)))
    return 3 if result.failed else 0
