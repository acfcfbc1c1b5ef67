"""What does an engine give, and what does it cost? The data side of the pipeline on each engine, against the run in memory.

    .venv/bin/python -m benchmarks.engines

Every engine that can run on this machine takes in, measures, transforms and evaluates the same images, in two spans and so in
two shards. The engines take turns in one process, which has done the same in memory once before; their servers run beside it
all the time. A model is trained for an epoch before, on some of the images. Of the repeats the median counts.

docs/engines.json has the single runs, docs/scaling.md gets the table.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from base.local_files import new_folder, write_text
from benchmarks.backbones import write_section
from benchmarks.evaluator import DRAWN, NETWORKS, newest, prepare
from benchmarks.ingestion import KINDS, draw_image, file_name, write_images
from benchmarks.measurement import PROJECT, machine, paragraph, table
from pipeline.config.beam import BeamConfig
from pipeline.config.whole import Config
from pipeline.dag.beam import pipeline_args

PATIENCE = 120  # seconds that a server has to start
COMPONENTS = ("ImageExampleGen", "StatisticsGen", "Transform", "Evaluator")
NETWORK = "small_resnet10, 32x32x1"


class Unavailable(Exception):
    """An engine can't run here, and why."""


@contextlib.contextmanager
def service(log: Path, command: list[str], port: int) -> Iterator[str]:
    """A server in a process of its own, which listens on a port of this machine: its address."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    try:
        end = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
                break
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{' '.join(command)} does not listen:\n{log.read_text()}")
            time.sleep(0.1)
        yield f"localhost:{port}"
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


def worker_pool(folder: Path) -> contextlib.AbstractContextManager[str]:
    port = free_port()
    return service(folder / "workers.log", [sys.executable, "-m", "pipeline.local.worker_pool", f"--port={port}"], port)


def job_service(folder: Path, workers: int) -> contextlib.AbstractContextManager[str]:
    """Beam's own, which works as the run in memory does, in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.engines", "--serve", str(port), str(workers), str(folder / "staged")]
    return service(folder / "jobs.log", command, port)


def serve_jobs(port: int, workers: int, folder: str) -> None:
    """Beam's job service; it has no option for the number of workers, which is set in its runner."""
    from apache_beam.runners.portability import local_job_service
    from apache_beam.runners.portability.fn_api_runner import fn_runner

    class Runner(fn_runner.FnApiRunner):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self._num_workers = workers

    fn_runner.FnApiRunner = Runner
    local_job_service.LocalJobServicer(folder).start_grpc_server(port)
    threading.Event().wait()


def prism_service(folder: Path) -> contextlib.AbstractContextManager[str]:
    """Beam's engine in Go.

    Raises:
      Unavailable: it is not installed.
    """
    program = shutil.which("prism", path=os.pathsep.join([os.environ.get("GOBIN", ""), os.environ.get("PATH", "")]))
    if not program:
        raise Unavailable("no `prism` in GOBIN or PATH; go install github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0")
    port = free_port()
    return service(folder / "prism.log", [program, f"-job_port={port}", "-serve_http=false"], port)


@contextlib.contextmanager
def memory(_: Path) -> Iterator[BeamConfig]:
    yield BeamConfig()


@contextlib.contextmanager
def with_pool(folder: Path, engine: Callable[[Path], contextlib.AbstractContextManager[str]]) -> Iterator[BeamConfig]:
    with engine(folder) as jobs, worker_pool(folder) as workers:
        yield BeamConfig(runner="portable", job_endpoint=jobs, environment="external", worker_address=workers)


@contextlib.contextmanager
def prism(folder: Path) -> Iterator[BeamConfig]:
    with prism_service(folder) as jobs:
        yield BeamConfig(runner="portable", job_endpoint=jobs)


@contextlib.contextmanager
def flink(_: Path, parallelism: int) -> Iterator[BeamConfig]:
    """Flink's embedded cluster.

    Raises:
      Unavailable: there is no Java, or Beam has not fetched its job server yet.
    """
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.flink_runner import FlinkJarJobServer
    from apache_beam.utils.subprocess_server import JavaJarServer

    if not shutil.which("java"):
        raise Unavailable("no Java to run Flink with")
    beam = BeamConfig(runner="flink", parallelism=parallelism)
    jar = os.path.basename(FlinkJarJobServer(PipelineOptions(pipeline_args(beam))).path_to_jar())
    if not Path(JavaJarServer.JAR_CACHE, jar).exists():
        raise Unavailable(f"Beam's job server for Flink, {jar}, is not in ~/.apache_beam/cache/jars")
    yield beam


@contextlib.contextmanager
def dask(folder: Path, workers: int) -> Iterator[BeamConfig]:
    """A scheduler and workers of one thread."""
    with contextlib.ExitStack() as stack:

        def start(name: str, option: str, *arguments: str) -> str:
            port = free_port()
            command = [sys.executable, "-m", "dask", *arguments, "--host=127.0.0.1", f"{option}={port}"]
            return stack.enter_context(service(folder / f"{name}.log", command, port))

        dashboard, options = (
            "--dashboard-address=127.0.0.1:0",
            ["--nthreads=1", "--no-nanny", "--memory-limit=0", "--no-dashboard"],
        )
        scheduler = f"tcp://{start('scheduler', '--port', 'scheduler', dashboard)}".replace("localhost", "127.0.0.1")
        for number in range(workers):
            start(f"worker-{number}", "--worker-port", "worker", scheduler, *options)
        yield BeamConfig(runner="dask", dask_scheduler=scheduler)


@dataclass(frozen=True)
class Engine:
    """A row of the table; `start` gives the configuration, for as long as its servers run."""

    name: str
    workers: str
    start: Callable[[Path], contextlib.AbstractContextManager[BeamConfig]]


ENGINES = {
    "memory": Engine("in memory (`local`)", "the component", memory),
    "prism": Engine("Prism, loopback", "the component", prism),
    "prism-pool": Engine("Prism, external", "1 process", partial(with_pool, engine=prism_service)),
    "portable": Engine("Beam's job service, external", "1 process", partial(with_pool, engine=partial(job_service, workers=1))),
    "portable-2": Engine(
        "Beam's job service, external", "2 processes", partial(with_pool, engine=partial(job_service, workers=2))
    ),
    "dask-2": Engine("Dask", "2 processes", partial(dask, workers=2)),
    "flink-1": Engine("Flink, loopback", "parallelism 1", partial(flink, parallelism=1)),
    "flink-2": Engine("Flink, loopback", "parallelism 2", partial(flink, parallelism=2)),
}


def run_data_side(config: Config, output: Path, model: Path, split: str) -> dict[str, float]:
    """Runs all components that use Beam: up to Transform as the pipeline does, and the Evaluator with a model that is there.

    Args:
      config: the whole configuration, with the engine.
      output: an empty folder; the Evaluator writes to `evaluation`, the others to NODE/KEY/NUMBER.
      model: the SavedModel.
      split: what is evaluated.

    Returns:
      Component -> seconds.
    """
    from tfx.dsl.components.base import base_beam_executor
    from tfx.orchestration.local.local_dag_runner import LocalDagRunner
    from tfx.orchestration.pipeline import RunOptions
    from tfx.types import channel_utils, standard_artifacts

    from components.evaluator.component import ImageEvaluator
    from components.evaluator.executor import Executor
    from pipeline.dag.eval_config import build_eval_config, evaluation_settings
    from pipeline.dag.pipeline import create_pipeline
    from pipeline.records.store import make_store

    store = make_store(None, output)
    pipeline = create_pipeline(
        config,
        pipeline_root=str(output),
        push_folder=str(output / "pushed"),
        name=store.pipeline_name(config.name),
        connection=store.connection,
    )
    LocalDagRunner().run(pipeline, run_options=RunOptions(to_nodes=["Transform"]))
    opened = store.open()
    names = {kind.id: kind.name.rpartition(".")[2] for kind in opened.get_execution_types()}
    seconds = {
        names[item.type_id]: (item.last_update_time_since_epoch - item.create_time_since_epoch) / 1000
        for item in opened.get_executions()
        if names[item.type_id] in COMPONENTS
    }

    examples, exported, evaluation = (
        standard_artifacts.Examples(),
        standard_artifacts.Model(),
        standard_artifacts.ModelEvaluation(),
    )
    examples.uri, examples.split_names = str(newest(output / "ImageExampleGen/examples")), json.dumps([split])
    exported.uri, evaluation.uri = str(output / "model"), str(output / "evaluation")
    shutil.copytree(model, output / "model" / "Format-Serving")
    settings = evaluation_settings(config.evaluate, False, [split], judged=False)
    component = ImageEvaluator(
        examples=channel_utils.as_channel([examples]),
        model=channel_utils.as_channel([exported]),
        baseline_model=None,
        eval_config=build_eval_config(settings),
        settings=settings,
        code="",
    )
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=pipeline_args(config.beam), tmp_dir=str(output / "tmp"), unique_id="1"
    )
    before = time.perf_counter()
    inputs = {"examples": [examples], "model": [exported]}
    Executor(context).Do(inputs, {"evaluation": [evaluation]}, dict(component.exec_properties))
    return seconds | {"Evaluator": round(time.perf_counter() - before, 2)}


def write_spans(folder: Path, images: int) -> Path:
    """Writes the images in two spans, unless they are there; returns the value of `data.path`."""
    finished = folder / f"spans-{images}"
    if not finished.exists():
        with new_folder(finished) as unfinished, ProcessPoolExecutor(len(os.sched_getaffinity(0))) as workers:
            paths = [unfinished / f"span-{1 + number % 2}" / file_name(KINDS["small"], number // 2) for number in range(images)]
            for parent in {path.parent for path in paths}:
                parent.mkdir(parents=True)
            for _ in workers.map(write_image, paths, range(images), chunksize=100):
                pass
    return finished / "span-{SPAN}"


def write_image(path: Path, number: int) -> None:
    kind = KINDS["small"]
    draw_image(kind, number).save(path, **kind.options)


@dataclass(frozen=True)
class Run:
    """Seconds by component of one run of an engine."""

    engine: str
    seconds: dict[str, float]


def measure(names: list[str], images: int, repeats: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Runs the engines in turns; the results so far after each turn."""
    data = write_spans(folder, images)
    model = newest(prepare(NETWORK, folder, write_images(folder, "small", DRAWN)) / "run/pushed")
    runs: list[Run] = []
    missing: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="run-", dir=folder)))
        configs = {}
        for name in names:
            (work / name).mkdir()
            try:
                beam = stack.enter_context(ENGINES[name].start(work / name))
            except Unavailable as reason:
                missing[name] = str(reason)
                continue
            settings = {"name": "engines", "data": {"path": str(data)}, "image": NETWORKS[NETWORK]["image"], "beam": beam}
            configs[name] = Config.model_validate(settings)
        for repeat in range(repeats + 1):
            for name in configs if repeat else ["memory"]:  # the first is to warm up
                with tempfile.TemporaryDirectory(dir=work) as output:
                    run = Run(name, run_data_side(configs[name], Path(output), model, "train"))
                print(f"[{repeat}/{repeats}] {ENGINES[name].name}, {ENGINES[name].workers}: {run.seconds}", flush=True)
                runs += [run] if repeat else []
            if repeat:
                yield {
                    "machine": machine(),
                    "images": images,
                    "repeats": repeat,
                    "missing": missing,
                    "runs": [asdict(run) for run in runs],
                }


def section(results: dict[str, Any]) -> str:
    """The section of docs/scaling.md."""
    runs, images, repeats = [Run(**run) for run in results["runs"]], results["images"], results["repeats"]
    found = {name: [run.seconds for run in runs if run.engine == name] for name in dict.fromkeys(run.engine for run in runs)}

    def rate(name: str, *components: str) -> str:
        rates = sorted(images / sum(seconds[component] for component in components) for seconds in found[name])
        spread = f" ({rates[0]:,.0f} to {rates[-1]:,.0f})" if len(rates) > 1 else ""
        return f"{statistics.median(rates):,.0f}{spread}"

    def total(name: str) -> float:
        return statistics.median(sum(seconds.values()) for seconds in found[name])

    rows = [
        [
            ENGINES[name].name,
            ENGINES[name].workers,
            rate(name, "ImageExampleGen", "Transform"),
            rate(name, "Evaluator"),
            f"{statistics.median(seconds['StatisticsGen'] for seconds in found[name]):.1f}",
            f"{total(name):.1f}",
            f"{total(name) / total('memory'):.2f}",
        ]
        for name in found
    ]
    header = [
        "engine",
        "workers",
        "ImageExampleGen and Transform, images/s",
        "Evaluator, images/s",
        "StatisticsGen, s",
        "all four, s",
        "times in memory",
    ]
    text = (
        f"The data are {images:,} JPEG files of 128x128 pixels in two shards, resized to 32x32x1; on {results['machine']}. "
        + (f"Medians of {repeats} runs, with the smallest and largest in brackets. " if repeats > 1 else "One run of each. ")
        + "The start of the jobs and workers is included. Made by `benchmarks/engines.py`."
    )
    text = f"{paragraph(text)}\n\n{table(header, rows)}\n"
    notes = [
        f"{ENGINES[name].name}, {ENGINES[name].workers}: not run; {reason}." for name, reason in results["missing"].items()
    ]
    return text + "".join(f"\n{paragraph(note)}\n" for note in notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="all if not given")
    parser.add_argument("--images", type=int, default=5_000, help="number of images (5,000)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--folder", type=Path, default=Path("output/benchmark_data"), help="for the images and outputs")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder for what is written (docs)")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)  # what the job service is started with
    options = parser.parse_args()
    if options.serve:
        port, workers, staged = options.serve
        serve_jobs(int(port), int(workers), staged)
        return
    if "memory" not in options.engines:
        parser.error("--engines needs memory, which the others are compared with")
    names = [name for name in ENGINES if name in options.engines]
    for results in measure(names, options.images, options.repeats, options.folder.resolve()):
        write_text(options.docs / "engines.json", json.dumps(results, indent=1) + "\n")
        text = section(results)
        write_section(options.docs / "scaling.md", "engines", text)
    print(text)


if __name__ == "__main__":
    main()
