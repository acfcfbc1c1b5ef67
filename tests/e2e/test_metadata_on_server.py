"""The pipeline on a database server: as on a file, and two runs at a time."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import ml_metadata as mlmd
import pytest
from few_digits import write_config, write_few_digits

from base.errors import UserError
from pipeline.config.metadata_server import parse_metadata_server
from pipeline.records.runs import read_runs
from pipeline.records.store import PASSWORD_VARIABLE, check_server, make_store

pytestmark = pytest.mark.extra

PASSWORD = "s3cret'\\ @:é"
SOURCE_DIGITS = 240  # three pictures each


@dataclass(frozen=True)
class Server:
    """A database server of this file's own, with a user `fpn` and two of its databases, `first` and `second`."""

    system: str
    port: int

    def url(self, database, user="fpn"):
        return f"{self.system}://{user}@127.0.0.1:{self.port}/{database}"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def account(name):
    """What a server is started as, for both refuse root."""
    if os.geteuid():
        return {}
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        pytest.skip(f"a server does not run as root, and there is no user {name}")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@pytest.fixture(scope="module")
def folder():
    """Of databases; other users may enter it, unlike pytest's own."""
    path = Path("/tmp") / f"fpn-database-{os.getpid()}"
    path.mkdir()
    path.chmod(0o777)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def postgresql(folder):
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")) or [Path(shutil.which("pg_ctl") or "")]
    if not found[-1].name:
        pytest.skip("PostgreSQL is not installed")
    programs, user, port = found[-1].parent, account("postgres"), free_port()
    data = folder / "postgresql"
    (folder / "password").write_text("admin")
    (folder / "password").chmod(0o644)

    def call(program, *arguments):
        command = [programs / program, *map(str, arguments)]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, **user)

    call(
        "initdb",
        "-D",
        data,
        "-U",
        "admin",
        "--auth=scram-sha-256",
        f"--pwfile={folder / 'password'}",
        "--no-sync",
        "-E",
        "UTF8",
    )
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    call("pg_ctl", "-D", data, "-w", "-l", folder / "postgresql.log", "-o", options, "start")
    try:
        quoted = PASSWORD.replace("'", "''")
        statements = [f"CREATE ROLE fpn LOGIN PASSWORD '{quoted}'", "CREATE ROLE poor LOGIN PASSWORD 'poor'"]
        statements += [f"CREATE DATABASE {name} OWNER fpn" for name in ("first", "second")] + ["CREATE DATABASE third"]
        for statement in statements:
            command = [programs / "psql", "-h", "127.0.0.1", "-p", str(port), "-U", "admin", "-d", "postgres", "-c", statement]
            subprocess.run(command, check=True, env={**os.environ, "PGPASSWORD": "admin"}, stdout=subprocess.DEVNULL)
        yield Server("postgresql", port)
    finally:
        call("pg_ctl", "-D", data, "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def mysql(folder):
    programs = {name: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in ("mariadb-install-db", "mariadbd")}
    if not all(programs.values()):
        pytest.skip("MariaDB is not installed")
    user, port = account("mysql"), free_port()
    data = folder / "mysql"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "cwd": folder, **user}
    install = [programs["mariadb-install-db"], "--no-defaults", f"--datadir={data}", "--skip-test-db"]
    subprocess.run(install, check=True, **quiet)
    statements = folder / "mysql.sql"
    quoted = PASSWORD.replace("\\", "\\\\").replace("'", "''")
    statements.write_text(
        "SET NAMES utf8mb4;\n"
        "CREATE DATABASE first;\n"
        "CREATE DATABASE second;\n"
        f"CREATE USER fpn@'127.0.0.1' IDENTIFIED BY '{quoted}';\n"
        "GRANT ALL ON first.* TO fpn@'127.0.0.1';\n"
        "GRANT ALL ON second.* TO fpn@'127.0.0.1';\n"
    )
    statements.chmod(0o644)
    serve = [programs["mariadbd"], "--no-defaults", f"--datadir={data}", f"--port={port}", "--bind-address=127.0.0.1"]
    serve += [f"--socket={folder / 'mysql.sock'}", f"--pid-file={folder / 'mysql.pid'}", f"--init-file={statements}"]
    process = subprocess.Popen(serve, **quiet)
    try:
        for _ in range(100):
            time.sleep(0.2)
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
        yield Server("mysql", port)
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def server(request):
    return request.getfixturevalue(request.param)


both = pytest.mark.parametrize("server", ["postgresql", "mysql"], indirect=True)


@pytest.fixture(autouse=True)
def _password(monkeypatch):
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    for name in ("PGPASSWORD", "MYSQL_PWD"):
        monkeypatch.setenv(name, "")  # and back after what the store sets


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A small data set and a configuration, whose run takes little more than loading TensorFlow."""
    place = tmp_path_factory.mktemp("place")
    write_few_digits(place / "data", SOURCE_DIGITS)
    write_config(place, train={"epochs": 1})
    return place


@pytest.fixture(scope="module")
def run(place, fpn):
    def call(output, url=None):
        setting = ["--set", f"metadata={url}"] if url else []
        ended = fpn("run", "--config", place / "config.yaml", "--output", place / output, "--json", *setting)
        assert ended.status == 0, ended.stderr
        return ended.json

    return call


@pytest.fixture(scope="module")
def on_file(run):
    return run("file"), run("file")


def states(summary):
    return {name: component["state"] for name, component in summary["components"].items()}


@both
def test_two_runs_at_a_time_are_those_on_a_file_and_each_has_its_own(server, run, on_file, place, fpn):
    outputs = [f"{server.system}-{number}" for number in range(2)]
    url = server.url("first").replace("fpn@", "fpn:wrong@")  # the variable wins
    with ThreadPoolExecutor() as threads:
        first = list(threads.map(lambda output: run(output, url), outputs))
    for summary in first:  # nothing came from the other run
        assert states(summary) == states(on_file[0])
        assert summary["metrics"] == on_file[0]["metrics"]
        assert summary["examples"] == on_file[0]["examples"]
    again = run(outputs[0], server.url("first"))
    assert states(again) == states(on_file[1])
    assert states(again) == dict.fromkeys(states(again), "cached") | {"Pusher": "complete"}  # it looks each time
    for key in ("pushed_model", "evaluation", "metrics", "examples"):
        assert again[key] == first[0][key]

    for output, count in zip(outputs, (2, 1), strict=True):
        runs = read_runs(place / output)
        assert [(item.pipeline, item.blessed, item.failed) for item in runs] == [("few-digits", True, None)] * count
        assert all(item.pushed and item.pushed.startswith(str(place / output)) for item in runs)
        assert not (place / output / "metadata.sqlite").exists()
        page = place / f"{output}.html"
        ended = fpn("report", place / output, "--output", page)
        assert ended.status == 0, ended.stderr
        assert f"Trainer ({'from the cache' if count == 2 else 'done'}) read" in page.read_text()  # the lineage in words

    store = make_store(parse_metadata_server(server.url("first")), place / outputs[0]).open()
    for types in (store.get_artifact_types(), store.get_execution_types(), store.get_context_types()):
        assert len({item.name for item in types}) == len(types)
    for written in place.glob(f"{server.system}-*/**/*"):
        if written.is_file():
            assert b"s3cret" not in written.read_bytes(), written
            assert b"fpn:wrong" not in written.read_bytes(), written


@both
def test_texts_and_order_are_those_of_a_file(server, tmp_path):
    store = make_store(parse_metadata_server(server.url("second")), tmp_path).open()
    proto = mlmd.proto
    type_id = store.put_artifact_type(proto.ArtifactType(name="Text"))
    text = "C:\\new 'quoted' \\\\ \"é\" \n"
    items = [proto.Artifact(type_id=type_id, uri=text, name=f"{number}\\") for number in range(20)]
    for item in items:
        item.custom_properties["text"].string_value = text
    ids = store.put_artifacts(items)
    for number in (3, 0, 7):  # which moves the row in PostgreSQL
        (changed,) = store.get_artifacts_by_id([ids[number]])
        changed.state = proto.Artifact.LIVE
        store.put_artifacts([changed])
    read = store.get_artifacts_by_id(ids)
    assert [item.id for item in read] == ids
    assert {(item.uri, item.custom_properties["text"].string_value) for item in read} == {(text, text)}
    assert store.get_artifact_by_type_and_name("Text", "7\\").id == ids[7]


@both
@pytest.mark.parametrize(
    ("database", "user", "password", "of_postgresql", "of_mysql"),
    [
        (
            "first",
            "fpn",
            "wrong",
            "does not let fpn in; check user and password",
            "does not let fpn in; check user and password",
        ),
        ("first", "fpn", "", "needs a password: set FPN_METADATA_PASSWORD", "does not let fpn in; check user and password"),
        ("none", "fpn", PASSWORD, "no database none that fpn may use; make it", "no database none that fpn may use; make it"),
        ("third", "poor", "poor", "poor may not make tables in third; let poor own it", "does not let poor in"),
    ],
)
def test_what_keeps_a_run_from_the_server_is_told(server, database, user, password, of_postgresql, of_mysql, monkeypatch):
    monkeypatch.setenv(PASSWORD_VARIABLE, password)
    with pytest.raises(UserError) as failure:
        check_server(parse_metadata_server(server.url(database, user)))
    told = str(failure.value)
    assert told.startswith(f"metadata: {server.url(database, user)}: ")
    assert {"postgresql": of_postgresql, "mysql": of_mysql}[server.system] in told
    assert "s3cret" not in told
