"""Cross-validation by group: each image is tested once, by a model that has seen no image of its group."""

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.text import Text

from base.errors import UserError
from base.local_files import write_text
from base.paths import short_path
from images.dataset import source
from pipeline.config.whole import Config
from pipeline.dag.readings import Readings
from pipeline.dag.splits import Splits, fold_splits
from pipeline.local.checks import named_workers, read_data
from pipeline.local.workplace import Workplace, execute, started
from pipeline.records.notes import LeftOutNote
from pipeline.records.reproduction import write_reproduction
from pipeline.records.results import CrossvalResult, Execution, SliceSpread, Spread
from pipeline.terminal.console import plain_console
from pipeline.terminal.crossval import render_crossval

if TYPE_CHECKING:
    from evaluation.results import Evaluation

_FEWEST_FOLDS: Final = 3  # one tests, one watches training, one trains
_SHOWN: Final = 4  # metrics on the line of a fold


def run(config: Config, output: Path, folds: int) -> CrossvalResult:
    """Runs the pipeline once for each fold: tests on the fold, watches training on the next one, trains on all others.

    What does not depend on the fold (examples, statistics, schema, validation) is computed once and then comes from the
    cache. So does everything that is unchanged since an earlier call: after an interruption, a new call goes on where the
    last one stopped. No model is judged or pushed. Images that the data assigns to the test split are in no fold.

    Writes below `output/crossval`: `metadata.sqlite`, `artifacts/` and `runs/RUN_ID/` with `config.yaml`, `reproduction.json`,
    `log.txt`, `crossval.json` and `crossval.txt`.

    Args:
      config: the whole configuration.
      output: the pipeline's output folder.
      folds: number of folds, 3 or more.

    Raises:
      UserError: the data or the configuration can't be used; nothing has run yet.
    """
    if folds < _FEWEST_FOLDS:
        raise UserError(f"--folds {folds}: give 3 or more, for one fold tests, one watches training, and the others train")
    if config.train.teacher:
        raise UserError("train.teacher: has seen images that folds are tested on; leave it out, with --set train.teacher=null")
    if config.train.warm_start:
        raise UserError(
            "train.warm_start: has seen images that folds are tested on; leave it out, with --set train.warm_start=null"
        )
    if config.data.spans:
        raise UserError("data.spans: folds take the images of all spans; leave it out, with --set data.spans=null")
    if named_workers():
        raise UserError("TF_CONFIG: other workers serve one training, and each fold is one; unset TF_CONFIG")
    found, readings = read_data(config, folds)
    rows, notes = found.rows, found.notes
    runs = [fold_splits(number, folds) for number in range(1, folds + 1)]
    _check_classes(config.data.path, rows, runs)
    images = Counter(row.split for row in rows)
    del found, rows

    with started(f"cross-validation in {folds} folds", config, output / "crossval", notes) as place:
        command = ["crossval", "--output", short_path(output.resolve()), "--folds", str(folds)]
        write_reproduction(config, place.folder, "cross-validation", command)
        executions: list[Execution] = []
        for number, splits in enumerate(runs, start=1):
            sizes = {role: sum(images[name] for name in names) for role, names in _roles(splits).items()}
            heading = ", ".join(f"{role} {size}" for role, size in sizes.items())
            place.console.print(Text.assemble((f"\nFold {number} of {folds}", "bold"), f"  images: {heading}"))
            executions.append(_run_fold(config, place, splits, readings))
            if executions[-1].error:
                break
        result = _sum_up(config, place, runs, executions)
        write_text(place.folder / "crossval.json", json.dumps(result.summary, indent=2) + "\n")
        if result.slices:
            with (place.folder / "crossval.txt").open("w", encoding="utf-8") as file:
                plain_console(file, width=80 + 10 * folds).print(render_crossval(result.slices))
    if images["test"]:
        result.notes.append(LeftOutNote(images["test"]))
    return result


def _roles(splits: Splits) -> dict[str, tuple[str, ...]]:
    return {"train": splits.train, "eval": splits.eval, "test": splits.test}


def _run_fold(config: Config, place: Workplace, splits: Splits, readings: Readings) -> Execution:
    from pipeline.dag.pipeline import create_pipeline

    pipeline = create_pipeline(
        config,
        pipeline_root=str(place.output / "artifacts"),
        push_folder=None,
        name=place.store.pipeline_name(config.name),
        connection=place.store.connection,
        splits=splits,
        readings=readings,
    )
    ended = execute(pipeline, place)
    if ended.evaluation:
        values = ", ".join(f"{name} {metric.value:.4f}" for name, metric in list(ended.evaluation.overall.items())[:_SHOWN])
        place.console.print(f"  {values}")
    return ended


def _sum_up(config: Config, place: Workplace, runs: list[Splits], executions: list[Execution]) -> CrossvalResult:
    last = executions[-1]
    slices = [] if last.error else spread([item.evaluation for item in executions if item.evaluation])
    summary = {
        "pipeline": config.name,
        "run_id": place.run_id,
        "folds": len(runs),
        "report": str(place.folder / "crossval.txt") if slices else None,
        "metrics": asdict(slices[0])["metrics"] if slices else {},
        "slices": [asdict(item) for item in slices],
        "examples": last.outputs.examples,
        "runs": [
            {
                **_roles(splits),
                "evaluation": item.outputs.evaluation,
                "training": item.outputs.training,
                "components": item.components,
            }
            for splits, item in zip(runs, executions, strict=False)  # fewer executions if one has failed
        ],
    }
    error = f"fold {len(executions)}: {last.error}" if last.error else ""
    return CrossvalResult(summary, slices, last.status, error, list(last.outputs.notes), last.outputs.examples_folder)


def _check_classes(folder: str, rows: Sequence[source.Row], runs: Sequence[Splits]) -> None:
    """Raises UserError if a fold's model would be tested on a class that it could not have learned."""
    folds_of: dict[str, set[str]] = {}
    for row in rows:
        if not row.reason and row.split != "test":
            for label in row.labels:
                folds_of.setdefault(label, set()).add(row.split)
    for number, splits in enumerate(runs, start=1):
        for label, found in sorted(folds_of.items()):
            if found.isdisjoint(splits.train):
                raise UserError(
                    f"{folder}: fold {number} would train without the class {label}, whose images are all in "
                    f"{' and '.join(sorted(found))}; give the class images of 3 groups or more, or leave it out"
                )


def spread(evaluations: Sequence["Evaluation"]) -> list[SliceSpread]:
    """Mean and standard deviation over the folds of every metric, slice by slice.

    Args:
      evaluations: one per fold, in order.
    """
    from evaluation.results import slice_order

    folds = [{item.key: item for item in evaluation.slices} for evaluation in evaluations]
    first = {key: item for fold in reversed(folds) for key, item in fold.items()}
    slices = []
    for key in sorted(first, key=slice_order):
        found = [fold.get(key) for fold in folds]
        names = dict.fromkeys(name for item in found if item for name in item.metrics)  # none if the slice is too small
        values = {name: [item.metrics.get(name) if item else None for item in found] for name in names}
        metrics = {name: _spread([item.value if item else None for item in folds]) for name, folds in values.items()}
        slices.append(SliceSpread(first[key].name, [item.examples if item else 0 for item in found], metrics))
    return slices


def _spread(values: list[float | None]) -> Spread:
    present = [value for value in values if value is not None]
    return Spread(statistics.mean(present), statistics.stdev(present) if len(present) > 1 else None, values)
