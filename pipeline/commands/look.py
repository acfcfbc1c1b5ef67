"""Commands that tell of the runs so far."""

import argparse
import json
from pathlib import Path

from base.errors import UserError
from base.paths import home_path
from base.redirection import quiet_libraries
from base.visible import print_error


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds runs, report."""
    for add in (_add_runs, _add_report):
        add(commands)


def _add_runs(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    runs = commands.add_parser("runs", help="list the runs so far")
    runs.add_argument("--output", type=home_path, metavar="DIR", help="as for run; all below output/ if not given")
    runs.add_argument("--json", action="store_true", help="print all of it as one JSON object on the last line")
    runs.set_defaults(call=_runs)


def _add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    report = commands.add_parser("report", help="show a run's evaluation")
    report.add_argument(
        "folder",
        type=home_path,
        metavar="DIR",
        help="an output folder (its latest run), a run in it, or a folder of TFMA results",
    )
    report.add_argument(
        "--compare",
        type=home_path,
        metavar="DIR",
        help="another one: the differences to it, on the test images that both have seen",
    )
    report.add_argument("--output", type=home_path, metavar="FILE.html", help="write the page that each run leaves, anew, here")
    report.set_defaults(call=_report)


def _runs(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from base.paths import short_path
    from pipeline.records.runs import read_runs
    from pipeline.terminal.console import plain_console
    from pipeline.terminal.runs import render_runs

    outputs = [options.output] if options.output else sorted(path.parent for path in Path("output").glob("*/runs"))
    found = {output: runs for output in outputs if (runs := read_runs(output, print_error))}
    if not found:
        raise UserError(f"{options.output or 'output'}: no runs here; start one with fpn run --config configs/digits.yaml")
    console = plain_console()
    for output, runs in found.items():
        data = next((run.data for run in runs if run.data), "")
        console.print(render_runs(runs, f"{short_path(output)}, from {short_path(data)}" if data else short_path(output)))
    if options.json:
        print(json.dumps({"runs": [{"output": str(output), **asdict(run)} for output, runs in found.items() for run in runs]}))
    return 0


def _report(options: argparse.Namespace) -> int:
    from pipeline.records.runs import find_evaluation
    from pipeline.terminal.console import plain_console
    from pipeline.terminal.tables import render_comparison, render_evaluation, render_training

    found = find_evaluation(options.folder)
    other = find_evaluation(options.compare) if options.compare else None
    if options.output and other:
        raise UserError("--output and --compare: give one of them")
    if options.output and not found.run:
        raise UserError(f"{options.folder}: a page tells of a run; give the output folder of one, such as output/digits")
    with quiet_libraries():
        if other:
            from pipeline.records.comparison import compare

            shown = [render_comparison(compare(found, other))]
        elif options.output and found.run:
            from pipeline.pages.run_page import write_run_page

            write_run_page(found.run, options.output)
            shown = [str(options.output)]
        else:
            from evaluation.results import read_evaluation

            shown = [render_evaluation(read_evaluation(str(found.folder))), render_training(found.training)]
    plain_console(soft_wrap=bool(options.output)).print(*shown)
    return 0
