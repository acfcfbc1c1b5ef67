"""Shards on a Dask cluster of processes: who works on what, what a death costs, and what is told of a cluster of no use."""

import os
import shutil
import signal
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dask_processes import PROJECT, Cluster, cluster
from shard_work import Killer, Refuser, Writer
from worker_processes import free_addresses

from base.errors import UserError
from base.project_code import PACKAGES
from components import dask_cluster
from components.dask_cluster import connect, map_shards

HELPERS = {"PYTHONPATH": f"{PROJECT}:{PROJECT}/tests/helpers"}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster"), 0) as found:
        for _ in range(2):
            found.add_worker(HELPERS)
        yield found


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    connect.cache_clear()
    monkeypatch.setattr(dask_cluster, "_PATIENCE", 5)


def begun(folder: Path, pattern: str = "*") -> list[Path]:
    return list(folder.glob(f"begun-{pattern}"))


def test_workers_share_the_shards_and_make_ready_once(two: Cluster, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    map_shards(two.address, "Square", Writer(tmp_path), range(20), lambda *progress: told.append(progress))
    assert {path.stem: path.read_text() for path in tmp_path.glob("*.txt")} == {str(n): f"{n * n}\n" for n in range(20)}
    assert told == [("Square", done, 20) for done in range(1, 21)]
    assert len(begun(tmp_path)) == 20
    assert {path.name.split("-")[2] for path in begun(tmp_path)} == {str(worker.pid) for worker in two.workers}
    assert len(list(tmp_path.glob("setup-*"))) == 2


def test_an_empty_set_of_shards_is_done_at_once(two: Cluster, tmp_path: Path) -> None:
    map_shards(two.address, "Square", Writer(tmp_path), [], dask_cluster.log_progress)
    assert not list(tmp_path.iterdir())


def test_a_killed_worker_costs_the_shard_that_it_had(two: Cluster, tmp_path: Path) -> None:
    victim = two.add_worker(HELPERS)

    told: list[int] = []
    last = ("27", "28", "29")  # each worker waits in one of these, when all others are finished
    lost: list[str] = []

    def kill() -> None:
        while not lost or len(told) < 27:
            lost[:] = [shard for shard in last if begun(tmp_path, f"{shard}-{victim.pid}")]
            time.sleep(0.01)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        (tmp_path / "go").touch()

    thread = threading.Thread(target=kill)
    thread.start()
    work = Writer(tmp_path, slow=tuple(map(int, last)))
    map_shards(two.address, "Square", work, range(30), lambda _, done, shards: told.append(done))
    thread.join()
    assert {path.stem: path.read_text() for path in tmp_path.glob("*.txt")} == {str(n): f"{n * n}\n" for n in range(30)}
    assert told == list(range(1, 31))
    assert [str(shard) for shard in range(30) if len(begun(tmp_path, f"{shard}-*")) > 1] == lost
    assert len(lost) == 1
    assert len(begun(tmp_path, f"*-{victim.pid}")) > 1, "it had finished others"


def test_what_a_shard_tells_the_user_is_told(two: Cluster) -> None:
    with pytest.raises(UserError, match=r"^row 3: is wrong; correct it$"):
        map_shards(two.address, "Refuse", Refuser(), range(8), dask_cluster.log_progress)


def test_a_shard_that_kills_its_workers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")
    with cluster(tmp_path, 0) as found:
        found.add_worker(HELPERS)
        with pytest.raises(UserError, match=r"Kill: the worker died each time that it had the same shard, last tcp://127"):
            map_shards(found.address, "Kill", Killer(), [1], dask_cluster.log_progress)


def test_a_cluster_whose_workers_are_all_gone_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT", "1s")
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "9")
    with cluster(tmp_path, 0) as found:
        found.add_worker(HELPERS)
        with pytest.raises(UserError, match=f"{found.address} has no workers; start some"):
            map_shards(found.address, "Kill", Killer(), [1], dask_cluster.log_progress)


def test_a_lost_scheduler_ends_the_run(tmp_path: Path) -> None:
    with cluster(tmp_path, 0) as found:
        found.add_worker(HELPERS)

        def kill() -> None:
            while not begun(tmp_path):
                time.sleep(0.01)
            found.scheduler.kill()

        threading.Thread(target=kill).start()
        with pytest.raises(UserError, match=f"beam.dask_scheduler: {found.address} was lost in Square; see its log"):
            map_shards(found.address, "Square", Writer(tmp_path, slow=(0,)), range(3), dask_cluster.log_progress)


def test_a_cluster_of_this_machine_works_and_says_where_it_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", HELPERS["PYTHONPATH"])
    client = connect(dask_cluster.HERE)
    try:
        cores = len(os.sched_getaffinity(0))
        assert dask_cluster.describe(client).startswith(f"Dask with {cores} worker{'s' * (cores > 1)}, see http://127.0.0.1:")
        map_shards(dask_cluster.HERE, "Square", Writer(tmp_path), range(4), dask_cluster.log_progress)
        assert len(list(tmp_path.glob("*.txt"))) == 4
    finally:
        client.cluster.close()
        client.close()


def test_an_address_without_a_scheduler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    (address,) = free_addresses(1)
    monkeypatch.setattr(dask_cluster, "_PATIENCE", 0.5)
    with pytest.raises(UserError, match=f"beam.dask_scheduler: nothing answers at tcp://{address} in 0.5 s; start a scheduler"):
        connect(f"tcp://{address}")


def test_workers_of_no_use_are_told(tmp_path: Path) -> None:
    with cluster(tmp_path, 0) as found:

        def refused() -> str:
            with pytest.raises(UserError) as error:
                connect(found.address)
            assert "\n" not in str(error.value)
            found.workers[-1].kill()
            found.workers[-1].wait()
            return str(error.value)

        assert refused_without_workers(found) == (
            f"beam.dask_scheduler: {found.address} has no workers; start some: dask worker {found.address} --memory-limit 0"
        )
        # -S and PYTHONPATH: the installed packages without what is installed in place, as this project is
        found.add_worker({"PYTHONPATH": sysconfig.get_path("purelib")}, "-S")
        assert "(ModuleNotFoundError(\"No module named 'components'\")); start it" in (message := refused()), message
        assert "where the project is installed with its extra dask" in message

        other = tmp_path / "other"
        for package in PACKAGES:
            shutil.copytree(PROJECT / package, other / package, ignore=shutil.ignore_patterns("__pycache__"))
        with (other / "images/loading.py").open("a") as file:
            file.write("# another version\n")
        found.add_worker({"PYTHONPATH": str(other)})
        assert "the project's code differs in the worker tcp://127.0.0.1:" in refused()

        metadata = tmp_path / "old/tensorflow-2.20.0.dist-info/METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text("Metadata-Version: 2.1\nName: tensorflow\nVersion: 2.20.0\n")
        found.add_worker({"PYTHONPATH": f"{tmp_path}/old:{PROJECT}"})
        assert "tensorflow differs in the worker" in (message := refused()), message
        assert "(2.20.0 there, 2.2" in message
        assert "install the same there, from requirements.lock, and start the worker again" in message


def refused_without_workers(found: Cluster) -> str:
    with pytest.raises(UserError) as error:
        connect(found.address)
    return str(error.value)


def test_the_extra_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"beam\.runner: dask needs the package distributed; install"):
        connect("tcp://127.0.0.1:1")
