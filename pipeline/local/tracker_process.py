"""Tells MLflow or W&B of one run: a script for an interpreter that has the tracker, and nothing of this project.

`pipeline.local.tracking` starts it with the tracker's name as its argument, and writes lines of JSON to its standard input:
{"begin": ...}, {"epoch": ...} after each epoch, perhaps again, and {"end": ...}. What can't be told is tried again with what
comes next. This script writes {"problem": text} to standard output when something can't be told, and {"place": text} when
nothing is left to tell.
"""

import json
import os
import queue
import sys
import threading
import time
from typing import Any

_TAG = "fpn.tracked"  # of MLflow's run: its key
_AT_ONCE = 100  # parameters, as many as MLflow takes
_KILLED: dict[str, Any] = {"status": "KILLED", "parameters": {}, "metrics": {}, "files": [], "confusions": []}


class Mlflow:
    """Tells MLflow: the server that MLFLOW_TRACKING_URI names, the experiment that is named as the pipeline."""

    def begin(self, run: dict[str, Any]) -> None:
        """Makes the run, or opens the one that has this key, and begins to measure the machine."""
        import mlflow
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._client = mlflow.MlflowClient()
        known = self._client.get_experiment_by_name(run["project"])
        experiment = known.experiment_id if known else self._client.create_experiment(run["project"])
        found = self._client.search_runs([experiment], f"tags.`{_TAG}` = '{run['key']}'")
        opened = found[0] if found else self._client.create_run(experiment, run_name=run["name"], tags={_TAG: run["key"]})
        self._id = opened.info.run_id
        self.place = f"{mlflow.get_tracking_uri()}, experiment {run['project']}, run {opened.info.run_name}"
        self._client.update_run(self._id, status="RUNNING")
        self._log_parameters(run["parameters"])
        self._known = {metric.step for metric in self._client.get_metric_history(self._id, "loss")}
        self._monitor = SystemMetricsMonitor(self._id, resume_logging=bool(found))
        self._monitor.start()

    def epoch(self, row: dict[str, float]) -> None:
        """Logs an epoch, unless the run has it."""
        if (step := int(row["epoch"])) not in self._known:
            self._log({name: value for name, value in row.items() if name != "epoch"}, step)
            self._known.add(step)

    def end(self, result: dict[str, Any]) -> None:
        """Logs what is known at the end, and closes the run."""
        self._monitor.finish()
        self._log_parameters(result["parameters"])
        self._log(result["metrics"], 0)
        for path in result["files"]:
            self._client.log_artifact(self._id, path)
        self._client.set_terminated(self._id, result["status"])

    def _log(self, metrics: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        self._client.log_batch(self._id, [Metric(name, value, now, step) for name, value in metrics.items()])

    def _log_parameters(self, parameters: dict[str, Any]) -> None:
        from mlflow.entities import Param

        items = [Param(name, str(value)) for name, value in parameters.items()]
        for first in range(0, len(items), _AT_ONCE):
            self._client.log_batch(self._id, params=items[first : first + _AT_ONCE])


class Wandb:
    """Tells W&B, as its variables WANDB_* say: the project that is named as the pipeline."""

    def begin(self, run: dict[str, Any]) -> None:
        """Makes the run, or opens the one that has this key; W&B measures the machine by itself."""
        import wandb

        try:
            self._run = wandb.init(
                project=run["project"],
                id=run["key"],
                name=run["name"],
                config=run["parameters"],
                resume="allow",
                dir=os.environ.get("WANDB_DIR", run["folder"]),
                settings=wandb.Settings(silent=True, console="off"),
            )
        except Exception:
            wandb.teardown()  # else the next try finds the run in use
            raise
        self.place = self._run.url or f"{self._run.settings.sync_dir}, to be sent by wandb sync"

    def epoch(self, row: dict[str, float]) -> None:
        """Logs an epoch, unless the run has it."""
        if (step := int(row["epoch"])) >= self._run.step:
            self._run.log(row, step=step, commit=True)

    def end(self, result: dict[str, Any]) -> None:
        """Logs what is known at the end, and closes the run."""
        import wandb

        self._run.config.update(result["parameters"])
        self._run.summary.update(result["metrics"])
        if result["confusions"]:
            names = ["Actual", "Predicted", "nPredictions"]
            table = wandb.Table(columns=names, data=result["confusions"])
            chart = wandb.plot_table("wandb/confusion_matrix/v1", table, {name: name for name in names})
            self._run.log({"confusion_matrix": chart})
        if result["files"]:
            artifact = wandb.Artifact(f"evaluation-{self._run.id}", "evaluation")
            for path in result["files"]:
                artifact.add_file(path)
            self._run.log_artifact(artifact)
        self._run.finish(exit_code=int(result["status"] != "FINISHED"))


TRACKERS = {"mlflow": Mlflow, "wandb": Wandb}


def main() -> None:
    tracker: Any = TRACKERS[sys.argv[1]]()
    answers, sys.stdout = sys.stdout, sys.stderr
    told: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(told,), daemon=True).start()  # so that no one waits who tells
    waiting: list[tuple[str, Any]] = []
    what, answer = "", {"": ""}
    while what != "end":
        waiting.append(told.get())
        what = waiting[-1][0]
        if what != "end" and not told.empty():
            continue
        before = answer
        try:
            while waiting:
                getattr(tracker, waiting[0][0])(waiting[0][1])
                del waiting[0]
            answer = {"place": tracker.place}
        except Exception as error:  # whatever it is, the next try may succeed
            answer = {"problem": " ".join(str(error).split()) or type(error).__name__}
        if answer != before:
            print(json.dumps(answer), file=answers, flush=True)


def _read(told: "queue.SimpleQueue[tuple[str, Any]]") -> None:
    for line in sys.stdin:
        for item in json.loads(line).items():
            told.put(item)
    told.put(("end", _KILLED))


if __name__ == "__main__":
    main()
