"""The evaluation page of a run, made from the run's files and metadata."""

import csv
from pathlib import Path

from base.errors import UserError
from base.inputs import read_json
from pipeline.config.loading import load_config
from pipeline.pages.evaluation_page import RunContext, write_evaluation_page
from pipeline.pages.lineage import draw_lineage
from pipeline.records.lineage import read_lineage
from pipeline.records.reproduction import CONFIG_FILE, REPRODUCTION_FILE
from pipeline.records.runs import store_of_run


def write_run_page(run: Path, output: Path) -> None:
    """Writes the page.

    Args:
      run: folder of a run that has reached the evaluation, with its configuration and summary.
      output: the HTML file; replaced if there is one.

    Raises:
      UserError: the run's evaluation or its metadata is gone.
    """
    summary, reproduction = (read_json(run / name, "run the pipeline again") for name in ("summary.json", REPRODUCTION_FILE))
    evaluation = Path(summary["evaluation"])
    if not evaluation.exists():
        raise UserError(f"{evaluation}: the evaluation of {run} is not there any more; run the pipeline again")
    store = store_of_run(run)
    if store is None:
        raise UserError(f"{run}: its metadata is not there any more; run the pipeline again")
    history = Path(summary["training"].get("history") or "")
    model = Path(summary["model"])
    context = RunContext(
        run_id=run.name,
        when=run.name.replace("T", " ").replace("-", ":").replace(":", "-", 2),
        summary=summary,
        training=list(csv.DictReader(history.read_text().splitlines())) if history.is_file() else [],
        lineage=draw_lineage(read_lineage(store, run.name)),
        command=reproduction["command"],
        versions=reproduction["versions"],
        digest=reproduction["digest"]["configuration"],
        notes=summary["notes"],
    )
    config = load_config(run / CONFIG_FILE, recorded=True)
    write_evaluation_page(config, evaluation, output, model=model if model.exists() else None, context=context)
