"""All benchmarks, and the page about them.

    .venv/bin/python -m benchmarks
    .venv/bin/python -m benchmarks --full
    .venv/bin/python -m benchmarks --only start-up evaluation

Writes docs/performance.json, docs/performance.md and its pictures. What is not measured this time stays as it was, with its own
machine and date. The exit status is 1 if a bar is missed.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import cores, evaluator, ingestion, input_path, million, performance_page, scale, start_up, whole_run
from benchmarks.measurement import Figure, figures_table


@dataclass(frozen=True)
class Plan:
    """How much is measured: quick, or full."""

    folder: Path
    repeats: int
    full: bool


def measure_photographs(plan: Plan) -> list[Figure]:
    photographs = whole_run.sign_digits(plan.folder) if plan.full else None
    if plan.full and photographs is None:
        print("sign_digits: data or weights are not there; left out")
    return whole_run.measure(photographs, plan.repeats) if photographs else []


def measure_steps(plan: Plan) -> list[Figure]:
    from benchmarks import step_time

    return step_time.figures(("small", "large") if plan.full else ("small",), rounds=15 if plan.full else 5)


BENCHMARKS: dict[str, Callable[[Plan], list[Figure]]] = {
    "start-up": lambda plan: start_up.measure(plan.folder, plan.repeats),
    "digits": lambda plan: whole_run.measure(
        whole_run.digits(plan.folder, epochs=10 if plan.full else 4), plan.repeats, in_memory=plan.full
    ),
    "photographs": measure_photographs,
    "files": lambda plan: whole_run.measure(whole_run.jpegs(plan.folder, 20_000), plan.repeats) if plan.full else [],
    "ingestion": lambda plan: ingestion.measure(plan.folder, plan.repeats, *((20_000, 500) if plan.full else (10_000, 0))),
    "training-step": measure_steps,
    "input-path": lambda plan: input_path.measure(plan.folder, plan.repeats if plan.full else 1),
    "evaluation": lambda plan: evaluator.measure(plan.folder, plan.repeats, 10_000) if plan.full else [],
    "cores": lambda plan: cores.measure(plan.folder, plan.repeats) if plan.full else [],
    "scale": lambda plan: scale.measure(plan.folder, plan.repeats) if plan.full else [],
    "million": lambda plan: million.measure(plan.folder) if plan.full else [],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="at full size, which takes hours; minutes if not given")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), help="all if not given")
    parser.add_argument("--repeats", type=int, default=3, help="of each (3)")
    parser.add_argument("--folder", type=Path, default=Path("output/benchmark_data"), help="for images and outputs")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the page (docs)")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    plan = Plan(options.folder.resolve(), options.repeats, options.full)
    missed = []
    for name in options.only:
        figures = BENCHMARKS[name](plan)
        if not figures:
            continue
        print(f"\n{figures_table(figures)}\n", flush=True)
        performance_page.store(options.docs, name, figures, plan.full)
        missed += [figure.name for figure in figures if not figure.is_met]
    performance_page.write(options.docs)
    if missed:
        raise SystemExit("bars missed:\n  " + "\n  ".join(missed))


if __name__ == "__main__":
    main()
