"""A running server keeps the version that it has when a newer one is damaged or not signed by the right key."""

import shutil
import time
from pathlib import Path

import pytest
from serving_process import serving
from signing_keys import make_keys

from components.pusher.integrity import find_problem
from components.pusher.record import Record
from components.pusher.signing import SIGNATURE_FILE
from components.pusher.versions import push, sign
from pipeline.cli import main


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.fixture(scope="module")
def pushed(exported, tmp_path_factory) -> Path:
    """A version, pushed and not signed."""
    return Path(push(exported.path, str(tmp_path_factory.mktemp("pushed")), Record(run="real"), None).path)


def test_each_file_of_a_real_version_is_looked_at(pushed: Path, tmp_path: Path):
    version = tmp_path / "version"
    shutil.copytree(pushed, version)
    files = [path for path in version.rglob("*") if path.is_file()]
    assert len(files) > 7
    assert find_problem(str(version)) == ""
    for file in files:
        whole = file.read_bytes()
        if whole:
            flip(file)
            assert file.name in find_problem(str(version)), file
        file.unlink()
        assert file.name in find_problem(str(version)), file
        file.write_bytes(whole)
    assert find_problem(str(version)) == ""


def test_a_running_server_goes_on_with_the_version_that_it_has(exported, pushed: Path, tmp_path: Path):
    ours, public = make_keys(tmp_path, "ours")
    folder = tmp_path / "folder"
    for number in ("1", "2", "4", "5", "6", "7", "8"):
        shutil.copytree(pushed, tmp_path / "versions" / number)
        if number != "6":
            sign(str(tmp_path / "versions"), int(number), make_keys(tmp_path, "other")[0] if number == "5" else ours)
    new = {name: tmp_path / "versions" / name for name in ("2", "4", "5", "6", "7", "8")}
    flip(new["4"] / "variables" / "variables.data-00000-of-00001")
    (new["7"] / "assets" / "labels").unlink()
    (new["8"] / "assets" / "more").touch()
    folder.mkdir()
    (tmp_path / "versions" / "1").rename(folder / "1")
    with serving(folder, "--require-signature", str(public)) as server:
        assert server.version() == 1
        for name in ("8", "7", "6", "5", "4", "2"):  # all but the last are tried first, for their numbers are larger
            new[name].rename(folder / name)
        deadline = time.monotonic() + 90
        statuses = []
        while server.version() != 2 and time.monotonic() < deadline:
            statuses.append(server.predict(exported.files[:2])[0])
            time.sleep(0.1)
        assert server.version() == 2
        assert set(statuses) == {200}
        (folder / "9").mkdir()  # nothing of what was refused is tried again
        time.sleep(1)
        assert server.version() == 2
        log = server.log.read_text()
    refused = [line for line in log.splitlines() if "can't be loaded, going on with" in line]
    for number, reason in (
        (8, "assets/more was added"),
        (7, "assets/labels is missing"),
        (6, f"it has no signature ({SIGNATURE_FILE})"),
        (5, "is no signature by the key of"),
        (4, "variables/variables.data-00000-of-00001 has changed"),
    ):
        (line,) = (line for line in refused if f"version {number} " in line)
        assert reason in line
        assert "going on with 1" in line
    assert len(refused) == 5


def test_a_server_does_not_start_without_a_version_to_trust(pushed: Path, tmp_path: Path, capsys):
    _, public = make_keys(tmp_path, "ours")
    assert main(["serve", "--model", str(pushed.parent), "--port", "0", "--require-signature", str(public)]) == 2
    error = f"fpn: {pushed}: is not trusted (it has no signature ({SIGNATURE_FILE})); push a signed one\n"
    assert capsys.readouterr().err == error
