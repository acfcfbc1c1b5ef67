"""Commands that look at data, train and evaluate on this machine."""

import argparse
import json
import os.path
import shlex
from pathlib import Path
from typing import get_args

from base.paths import home_path, short_path
from base.redirection import quiet_libraries
from base.visible import print_error, visible
from pipeline.commands.options import add_config_arguments
from pipeline.local.recipe import RecipeName


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds init, run, data, preview, crossval, labels."""
    for add in (_add_init, _add_run, _add_data, _add_preview, _add_crossval, _add_labels):
        add(commands)


def _add_init(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    init = commands.add_parser("init", help="look at a folder of images, and write a configuration for it")
    init.add_argument("data", type=os.path.expanduser, metavar="DATA", help="folder of images, or a URI")
    init.add_argument(
        "--output", type=home_path, metavar="FILE", help="YAML file to write (configs/NAME.yaml, NAME as the folder)"
    )
    init.add_argument(
        "--weights",
        type=os.path.expanduser,
        metavar="FILE",
        help="of a backbone, named as its file; or imagenet, installed or downloaded by Keras",
    )
    init.add_argument(
        "--recipe", choices=get_args(RecipeName), help="how the network learns; chosen by the data and the machine if not given"
    )
    init.add_argument(
        "--set", action="append", default=[], metavar="data.KEY=VALUE", dest="overrides", help="how the data is read"
    )
    init.set_defaults(call=_init)


def _add_run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    run = commands.add_parser("run", help="run the pipeline on this machine")
    add_config_arguments(run)
    run.add_argument("--output", type=home_path, metavar="DIR", help="folder for everything that the run writes (output/NAME)")
    run.add_argument("--budget", metavar="TIME", help="time for training, such as 90s, 20m or 1h30m, instead of epochs")
    run.add_argument("--json", action="store_true", help="print the summary as one JSON object on the last line")
    run.set_defaults(call=_run)


def _add_data(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    data = commands.add_parser("data", help="check the data, and write a page about it")
    add_config_arguments(data)
    data.add_argument("--output", type=home_path, metavar="DIR", help="as for run, which finds the data checked (output/NAME)")
    data.add_argument("--html", type=home_path, metavar="FILE", help="page to write (data.html in the output folder)")
    data.set_defaults(call=_data)


def _add_preview(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    preview = commands.add_parser("preview", help="draw augmented training images as the network sees them")
    add_config_arguments(preview)
    preview.add_argument(
        "--output", type=home_path, default=Path("preview.png"), metavar="FILE", help="PNG file to write (preview.png)"
    )
    preview.add_argument("--examples", type=int, default=8, metavar="N", help="training images to show, a row each (8)")
    preview.set_defaults(call=_preview)


def _add_crossval(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    crossval = commands.add_parser("crossval", help="cross-validate by group: test each image once, by a model of the others")
    _add_fold_arguments(crossval)
    crossval.set_defaults(call=_crossval)


def _add_labels(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    labels = commands.add_parser("labels", help="find images whose label is probably wrong, by cross-validation")
    _add_fold_arguments(labels)
    labels.add_argument(
        "--scores",
        type=home_path,
        metavar="DIR",
        help="what fpn score --embeddings has written of the data: trains linear models on it",
    )
    labels.set_defaults(call=_labels)


def _add_fold_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--output", type=home_path, metavar="DIR", help="as for run; all is written below DIR/crossval")
    parser.add_argument("--folds", type=int, default=5, metavar="K", help="parts of the data, 3 or more (5)")
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object on the last line")


def _init(options: argparse.Namespace) -> int:
    from pipeline.local.first_config import write_first_config

    output = options.output or Path("configs") / f"{Path(options.data).resolve().name or 'images'}.yaml"
    for line in write_first_config(options.data, output, options.weights, options.overrides, options.recipe):
        print(visible(line))
    print(f"Wrote {output}; next: fpn data --config {shlex.quote(str(output))}, then fpn run with the same")
    return 0


def _run(options: argparse.Namespace) -> int:
    from pipeline.config.loading import load_config
    from pipeline.local import runner
    from pipeline.terminal.console import plain_console
    from pipeline.terminal.tables import print_summary

    budget = [f"train.budget={options.budget}"] if options.budget is not None else []
    config = load_config(options.config, options.data, [*options.overrides, *budget])
    result = runner.run(config, options.output or Path("output") / config.name)
    print_summary(result, plain_console(soft_wrap=True))
    if result.error:
        print_error(result.error)
    if options.json:
        print(json.dumps(result.summary))
    return result.status


def _data(options: argparse.Namespace) -> int:
    from pipeline.config.loading import load_config
    from pipeline.local import runner

    config = load_config(options.config, options.data, options.overrides)
    output = options.output or Path("output") / config.name
    page = options.html or output / "data.html"
    status, error = runner.inspect(config, output, page)
    if error:
        print_error(error)
    else:
        print(page)
    return status


def _preview(options: argparse.Namespace) -> int:
    from pipeline.config.loading import load_config
    from pipeline.pages.preview import write_preview

    config = load_config(options.config, options.data, options.overrides)
    with quiet_libraries():
        write_preview(config, options.examples, options.output)
    print(options.output)
    return 0


def _crossval(options: argparse.Namespace) -> int:
    from pipeline.config.loading import load_config
    from pipeline.local import crossval
    from pipeline.terminal.console import plain_console
    from pipeline.terminal.crossval import print_crossval

    config = load_config(options.config, options.data, options.overrides)
    result = crossval.run(config, options.output or Path("output") / config.name, options.folds)
    print_crossval(result, plain_console())
    if result.error:
        print_error(result.error)
    if options.json:
        print(json.dumps(result.summary))
    return result.status


def _labels(options: argparse.Namespace) -> int:
    from pipeline.config.loading import load_config
    from pipeline.terminal.console import plain_console
    from pipeline.terminal.tables import print_notes

    config = load_config(options.config, options.data, options.overrides)
    with quiet_libraries():
        from pipeline.local import labels
    if options.scores:
        with quiet_libraries():
            result = labels.run_on_embeddings(config, options.scores, options.folds)
    else:
        result = labels.run(config, options.output or Path("output") / config.name, options.folds)
    if result.crossval:
        print_notes(result.crossval.notes, plain_console())
        if result.crossval.error:
            print_error(result.crossval.error)
    if result.folder:
        print(f"{result.issues} of {result.images} labels are probably wrong: {short_path(result.folder / labels.PAGE)}")
    if options.json:
        files = {name: result.folder and str(result.folder / file) for name, file in labels.FILES.items()}
        print(json.dumps({"images": result.images, "issues": result.issues, **files}))
    return result.crossval.status if result.crossval else 0
