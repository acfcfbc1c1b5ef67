"""A Dask cluster as the engine: connects to it, looks whether its workers can do the work, and gives them shards."""

import functools
import importlib.metadata
import itertools
import logging
import pickle
import platform
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from base.errors import UserError
from base.project_code import project_digest

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

HERE: Final = "here"  # instead of a scheduler's address: a cluster of this machine's cores, which ends with the process
_PATIENCE: Final = 30  # seconds in which the scheduler must answer, and have a worker
_WORKER_BYTES: Final = 2**31  # memory that a worker should have: TensorFlow, and a batch of images
_ALIKE: Final = ("dask", "distributed", "cloudpickle", "numpy", "pyarrow", "tensorflow", "tfx")  # packages
_mine = threading.local()  # what this thread of a worker works on

log = logging.getLogger(__name__)


@functools.cache
def connect(scheduler: str) -> "Client":
    """The client of a cluster, of which the process has one.

    Args:
      scheduler: tcp://HOST:PORT, or HERE.

    Raises:
      UserError: Dask is not installed, the scheduler can't be reached or has no workers, or these differ from this process.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise UserError(f"beam.runner: dask needs the package {error.name}; install the project with its extra dask") from error
    if scheduler == HERE:
        return Client(_start_cluster())
    try:
        client = Client(scheduler, timeout=_PATIENCE)
    except OSError as error:
        raise UserError(
            f"beam.dask_scheduler: nothing answers at {scheduler} in {_PATIENCE} s; start a scheduler there, or correct it"
        ) from error
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
    except TimeoutError as error:
        raise UserError(_no_workers(scheduler)) from error
    _check_workers(client)
    return client


def _no_workers(scheduler: str) -> str:
    return f"beam.dask_scheduler: {scheduler} has no workers; start some: dask worker {scheduler} --memory-limit 0"


def _start_cluster() -> "LocalCluster":
    """A worker for each core, but no more than there is memory for."""
    from dask.system import CPU_COUNT
    from distributed import LocalCluster
    from distributed.system import MEMORY_LIMIT

    # At the end of the process it would tell on the screen how it ends.
    logging.getLogger("distributed").setLevel(logging.ERROR)
    return LocalCluster(
        n_workers=max(1, min(CPU_COUNT, MEMORY_LIMIT // _WORKER_BYTES)),
        threads_per_worker=1,
        memory_limit=0,  # else a worker near its limit takes no more work, and the run waits for ever
        host="127.0.0.1",
        dashboard_address="127.0.0.1:8787",  # another port if this is taken
        silence_logs=False,  # else closing would set the level back
    )


@functools.cache  # for a worker that has loaded code which was changed later
def describe_process() -> dict[str, str]:
    """What must be the same in a worker: versions by package, and a digest of the project's code."""
    found = {name: importlib.metadata.version(name) for name in _ALIKE}
    return {"Python": ".".join(platform.python_version_tuple()[:2]), **found, "the project's code": project_digest()}


def describe(client: "Client") -> str:
    """How many workers there are, and where a browser sees what they do."""
    workers = len(client.scheduler_info(n_workers=-1)["workers"])
    seen = f", see {client.dashboard_link}" if client.dashboard_link else ""
    return f"Dask with {workers} worker{'s' * (workers != 1)}{seen}"


def _check_workers(client: "Client") -> None:
    here = describe_process()
    for worker, found in client.run(describe_process, on_error="return").items():
        if isinstance(found, Exception):  # such as ModuleNotFoundError
            raise UserError(
                f"beam.dask_scheduler: the worker {worker} can't work for this project ({found}); start it where the project "
                "is installed with its extra dask and the versions of requirements.lock"
            )
        for name in (name for name in here if found[name] != here[name]):
            versions = "" if name == "the project's code" else f" ({found[name]} there, {here[name]} here)"
            raise UserError(
                f"beam.dask_scheduler: {name} differs in the worker {worker}{versions}; "
                "install the same there, from requirements.lock, and start the worker again"
            )


def log_progress(name: str, done: int, shards: int) -> None:
    """Tells the display of a run how many shards are finished; a screen without a bar gets ten lines at most."""
    progress = {"done": done, "total": shards, "text": f"{name}, shard {done}/{shards}"}
    tenth = done * 10 // shards > (done - 1) * 10 // shards
    log.log(logging.INFO if tenth else logging.DEBUG, "%(text)s", progress, extra={"progress": progress})


def map_shards(scheduler: str, name: str, work: Any, shards: Sequence[Any], tell: Callable[[str, int, int], None]) -> None:
    """Does the work on all shards, each as a task. The shards of a worker that dies are given to others.

    Args:
      scheduler: as for `connect`.
      name: of the tasks.
      work: a Beam DoFn.
      shards: as for `spread`.
      tell: as for `spread`.

    Raises:
      UserError: by the work; or a shard's workers die again and again, no worker is left, or the scheduler is lost.
    """
    from distributed import CancelledError, KilledWorker, as_completed
    from distributed.scheduler import NoWorkerError

    client = connect(scheduler)
    # No list of the futures: Dask would do again what a worker had finished before it died, if it is still asked for.
    unfinished = as_completed(
        client.map(_process, shards, work=pickle.dumps(work), key=f"{name}-{uuid.uuid4().hex}", retries=1)
    )
    try:
        done = itertools.count(1)
        for future in unfinished:
            if future.status != "finished":
                future.result()  # raises what the shard has
            del future  # it would be asked for until the next one is finished; `enumerate` would keep it, too
            tell(name, next(done), len(shards))
    except KilledWorker as error:
        raise UserError(
            f"{name}: the worker died each time that it had the same shard, last {error.last_worker.address}; "
            "see its log, and give it more memory if that was it"
        ) from error
    except NoWorkerError as error:
        raise UserError(_no_workers(scheduler)) from error
    except CancelledError as error:
        raise UserError(f"beam.dask_scheduler: {scheduler} was lost in {name}; see its log, and start again") from error
    finally:
        client.cancel(list(unfinished.futures))


def _process(shard: Any, work: bytes) -> None:
    """Runs in a worker; each of its threads makes ready what it needs, such as the model, once for all shards."""
    if getattr(_mine, "packed", None) != work:
        _mine.packed = None
        _mine.work = pickle.loads(work)
        _mine.work.setup()
        _mine.packed = work
    for _ in _mine.work.process(shard):
        pass
