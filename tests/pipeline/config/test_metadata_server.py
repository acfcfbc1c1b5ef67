"""Addresses of metadata servers: what is read, what is refused, and that no password gets into any text."""

import json
import os

import pytest
import yaml

from base.errors import UserError
from pipeline.config.loading import dump_config, load_config
from pipeline.config.metadata_server import parse_metadata_server
from pipeline.config.whole import Config
from pipeline.records.reproduction import write_reproduction
from pipeline.records.store import PASSWORD_VARIABLE, check_server, find_store, make_store

SECRET = "s3cret'\\ /@:é"
WRITTEN = "s3cret%27%5C%20%2F%40%3A%C3%A9"
URL = f"postgresql://fpn:{WRITTEN}@db.example:5433/runs?sslmode=prefer"


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in (PASSWORD_VARIABLE, "PGPASSWORD", "MYSQL_PWD"):
        monkeypatch.setenv(name, "")  # and back after what the store sets


def configuration(url):
    return Config.model_validate({"name": "digits", "data": {"path": "data"}, "metadata": url})


def test_all_parts_of_an_address_are_read():
    server = parse_metadata_server(URL)
    assert (server.system, server.host, server.port, server.user) == ("postgresql", "db.example", 5433, "fpn")
    assert (server.database, server.password, server.options) == ("runs", SECRET, {"sslmode": "prefer"})


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (URL, "postgresql://fpn@db.example:5433/runs?sslmode=prefer"),
        ("mysql://a%40b@[::1]/runs?ssl_ca=/etc/ca.pem", "mysql://a%40b@[::1]:3306/runs?ssl_ca=/etc/ca.pem"),
        ("postgresql://fpn@localhost/runs", "postgresql://fpn@localhost:5432/runs"),
    ],
)
def test_as_text_an_address_is_the_same_without_the_password(url, text):
    server = parse_metadata_server(url)
    assert str(server) == text
    assert str(parse_metadata_server(text)) == text
    assert "s3cret" not in repr(server)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("metadata.sqlite", "must be postgresql://user@host:port/database"),
        ("sqlite:///s3cret.db", "must begin with postgresql:// or mysql://, not sqlite://"),
        ("postgres://u:s3cret@h/d", "not postgres://"),
        ("postgresql://u:s3cret@h", "has no database"),
        ("postgresql://:s3cret@h/d", "has no user"),
        ("postgresql://u:s3cret@/d", "has no host"),
        ("postgresql://u:s3cret/@h/d", "can't be read; write special characters"),
        ("postgresql://u:1/s3cret@h/d", "write special characters"),
        ("postgresql://u:s3cret@h:99999/d", "host or port can't be read"),
        ("postgresql://u:s3cret@h/d?sslmode=require", "has no TLS; use a tunnel"),
        ("mysql://u:s3cret@h/d?sslmode=disable", "unknown option sslmode; mysql takes ssl_ca"),
        (5, "must be postgresql://"),
    ],
)
def test_what_is_wrong_is_told_without_the_password(url, told, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"name": "digits", "data": {"path": "data"}, "metadata": url}))
    with pytest.raises(UserError) as failure:
        load_config(path)
    assert told in str(failure.value)
    assert "config.yaml: metadata" in str(failure.value)
    assert "s3cret" not in str(failure.value)


def test_an_override_that_is_not_yaml_is_not_repeated(tmp_path):
    (tmp_path / "config.yaml").write_text("name: digits\ndata: {path: data}\n")
    with pytest.raises(UserError) as failure:
        load_config(tmp_path / "config.yaml", overrides=["metadata=postgresql://u:s3cret: x@h/d"])
    assert "s3cret" not in str(failure.value)


def test_no_copy_of_the_configuration_has_the_password(tmp_path):
    config = configuration(URL)
    write_reproduction(config, tmp_path, "run", ["run"])
    texts = [path.read_text() for path in tmp_path.iterdir()]
    texts += [dump_config(config), repr(config), json.dumps(config.model_dump(mode="json"))]
    assert len(texts) == 5
    for text in texts:
        assert "s3cret" not in text
    assert load_config(tmp_path / "config.yaml").metadata.host == "db.example"


@pytest.mark.parametrize(("system", "variable"), [("postgresql", "PGPASSWORD"), ("mysql", "MYSQL_PWD")])
@pytest.mark.parametrize("of_environment", [False, True])
def test_the_password_goes_by_the_environment_and_not_into_what_tfx_logs(
    system, variable, of_environment, tmp_path, monkeypatch
):
    if of_environment:
        monkeypatch.setenv(PASSWORD_VARIABLE, "0ther")
    store = make_store(parse_metadata_server(URL.replace("postgresql", system).partition("?")[0]), tmp_path)
    assert os.environ[variable] == ("0ther" if of_environment else SECRET)
    assert "s3cret" not in f"{store.connection}{store}"
    assert "0ther" not in f"{store.connection}{store}"


def test_each_output_folder_has_names_of_its_own_on_a_server(tmp_path):
    server = parse_metadata_server("postgresql://u@h/d")
    first, second = (make_store(server, tmp_path / name) for name in "ab")
    assert first.pipeline_name("digits") != second.pipeline_name("digits")
    assert first.owns(first.new_run_name())
    assert not first.owns(second.new_run_name())
    assert make_store(server, tmp_path / "a") == find_store(server, tmp_path / "a") == first
    assert find_store(server, tmp_path / "c") is None


@pytest.mark.parametrize("system", ["postgresql", "mysql"])
def test_a_server_that_is_not_there_is_told(system):
    with pytest.raises(UserError, match=rf"metadata: {system}://u@127.0.0.1:1/d: no server answers there .*; start it"):
        check_server(parse_metadata_server(f"{system}://u:s3cret@127.0.0.1:1/d"))
