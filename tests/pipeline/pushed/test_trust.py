"""A pushed version is used only as it was pushed and, where that is asked for, only if the right key has signed it."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from signing_keys import make_keys

from base.errors import UserError
from components.pusher import signing
from components.pusher.integrity import find_problem, model_digest
from components.pusher.places import Version
from components.pusher.record import CHECKSUM_FILE, OLD_RECORD_FILE, RECORD_FILE, Record, checksum_line
from components.pusher.signing import SIGNATURE_FILE
from components.pusher.versions import list_versions, push, roll_back, served_version, sign
from pipeline.cli import main
from pipeline.pushed.pushed_model import find_version
from pipeline.serving import versions as serving

MODEL_FILES = (
    "saved_model.pb",
    "fingerprint.pb",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
    "assets/labels",
    "assets.extra/image.json",
    "assets.extra/model.tflite",
)
FILES = (*MODEL_FILES, RECORD_FILE, CHECKSUM_FILE)


def write_model(folder: Path, content: str) -> str:
    for name in MODEL_FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name} {content}\n" * 50)
    return str(folder)


def push_model(place: Path, content: str, private_key: Path | None = None) -> Version:
    model = write_model(place / content, content)
    record = Record(
        run=content, metrics={"accuracy": {"value": 0.75, "lower": 0.5, "upper": None}}, versions={"tensorflow": "2"}
    )
    return push(model, str(place / "pushed"), record, None, private_key)


def flip(file: Path, at: int) -> None:
    """Changes one byte, in a file of its own, as a copy may share the file."""
    content = bytearray(file.read_bytes())
    content[at] ^= 0x20
    file.unlink()
    file.write_bytes(content)


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return make_keys(tmp_path, "ours")


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a command says when it refuses."""
    assert main([str(argument) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


# --- the files


def test_the_manifest_has_each_file_and_what_sha256sum_says(tmp_path: Path) -> None:
    version = Path(push_model(tmp_path, "a").path)
    assert {str(path.relative_to(version)) for path in version.rglob("*") if path.is_file()} == set(FILES)
    manifest = json.loads((version / RECORD_FILE).read_text())
    assert {name: file["size"] for name, file in manifest["files"].items()} == {
        name: (version / name).stat().st_size for name in MODEL_FILES
    }
    lines = "".join(f"{file['sha256']}  {name}\n" for name, file in manifest["files"].items())
    lines += (version / CHECKSUM_FILE).read_text()
    checked = subprocess.run(["sha256sum", "--check", "--strict"], cwd=version, input=lines, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count(": OK\n") == len(MODEL_FILES) + 1
    assert (manifest["run"], manifest["versions"], manifest["metrics"]["accuracy"]["value"]) == ("a", {"tensorflow": "2"}, 0.75)


@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte_in_any_file_is_refused(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = Path(push_model(tmp_path, "a").path), Path(push_model(tmp_path, "b").path)
    whole = (new / name).read_bytes()
    for at in sorted({0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1}):
        flip(new / name, at)
        assert find_version(tmp_path / "pushed") == old
        line = told(capsys, "predict", "--model", new, tmp_path / "image.png")
        assert line.startswith(f"fpn: {new}: is damaged (")
        assert name in line
        (new / name).write_bytes(whole)
    assert find_version(tmp_path / "pushed") == new


@pytest.mark.parametrize("name", FILES)
def test_a_removed_file_is_refused(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = Path(push_model(tmp_path, "a").path), Path(push_model(tmp_path, "b").path)
    (new / name).unlink()
    assert find_version(tmp_path / "pushed") == old
    problem = list_versions(str(tmp_path / "pushed"))[-1].problem
    assert name in problem
    if name != "saved_model.pb":  # without it there is no SavedModel at all
        assert f"({problem})" in told(capsys, "predict", "--model", new, tmp_path / "image.png")


@pytest.mark.parametrize(("name", "shown"), [(b"\xff", r"'\udcff'"), (b"a\nb", r"'a\nb'")])
def test_an_added_file_of_an_odd_name_is_told_in_one_line(tmp_path: Path, name: bytes, shown: str, capsys) -> None:
    version = push_model(tmp_path, "a").path
    with open(os.fsencode(version) + b"/" + name, "wb"):
        assert f"{shown} was added" in told(capsys, "predict", "--model", version, tmp_path / "image.png")
    assert main(["push", "--to", str(tmp_path / "pushed"), "--list"]) == 1


@pytest.mark.parametrize("name", ["new", "assets.extra/new", "variables/variables.data-00001-of-00002", OLD_RECORD_FILE])
def test_an_added_file_is_refused(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = Path(push_model(tmp_path, "a").path), Path(push_model(tmp_path, "b").path)
    (new / name).write_text("")
    assert find_version(tmp_path / "pushed") == old
    line = told(capsys, "explain", "--model", new, tmp_path / "image.png")
    assert line == (
        f"fpn: {new}: is damaged (its files are not those that were pushed: {name} was added); push the model again"
    )


def test_all_differences_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    version = Path(push_model(tmp_path, "a").path)
    for name in MODEL_FILES[:3]:
        flip(version / name, 0)
    assert find_problem(str(version)).endswith(": fingerprint.pb has changed, and 2 more")


def test_a_version_of_an_earlier_release_is_used_and_checked_as_before(tmp_path: Path) -> None:
    version = tmp_path / "pushed" / "7"
    digest = model_digest(write_model(version, "a"))
    record = {"time": "2026-01-01T12:00:00+00:00", "digest": digest, "run": "old", "copy_of": 3}
    (version / OLD_RECORD_FILE).write_text(json.dumps(record))
    assert find_version(tmp_path / "pushed") == version
    assert push_model(tmp_path, "a").number == 7
    new = push_model(tmp_path, "b")
    back = roll_back(str(tmp_path / "pushed"), 7)
    assert back.number > new.number
    assert back.record
    assert (back.record.run, back.record.copy_of) == ("old", 3)
    flip(version / "assets/labels", 0)
    assert find_problem(str(version)) == "its files are not those that were pushed"


def test_a_server_reads_the_files_of_a_refused_version_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logging.disable()
    monkeypatch.setattr(serving, "Model", lambda path, version: type("Model", (), {"version": version}))
    first = push_model(tmp_path, "a")
    server = serving.Versions(tmp_path / "pushed")
    second = Path(push_model(tmp_path, "b").path)
    flip(second / "fingerprint.pb", 3)
    read = []
    monkeypatch.setattr(serving, "find_problem", lambda *arguments: read.append(arguments) or find_problem(*arguments))
    for _ in range(10):
        if found := server._newest():
            assert server._load(*found) is None
    assert len(read) == 1
    assert server.current.version == first.number
    logging.disable(logging.NOTSET)


# --- signatures


def test_a_server_looks_at_a_refused_version_again_when_the_key_changes(
    tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "Model", lambda path, version: type("Model", (), {"version": version}))
    private, public = keys
    push_model(tmp_path, "a", private)
    server = serving.Versions(tmp_path / "pushed", public)
    public.rename(tmp_path / "away")
    second = push_model(tmp_path, "b", private)
    assert [server._load(*found) for _ in range(4) if (found := server._newest())] == [None]
    (tmp_path / "away").rename(public)
    (model,) = [server._load(*found) for _ in range(2) if (found := server._newest())]
    assert model is not None
    assert model.version == second.number


def test_a_signed_version_is_taken_and_the_command_of_model_signing_agrees(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    version = Path(push_model(tmp_path, "a", private).path)
    assert find_version(tmp_path / "pushed", public) == version

    def model_signing(*arguments: object) -> int:
        command = [sys.executable, "-m", "model_signing", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, check=False).returncode

    signature = ("--signature", version / SIGNATURE_FILE)
    assert model_signing("verify", "key", version, *signature, "--public_key", public) == 0
    assert model_signing("verify", "key", version, *signature, "--public_key", make_keys(tmp_path, "other")[1]) != 0
    (version / SIGNATURE_FILE).unlink()
    assert model_signing("sign", "key", version, *signature, "--private_key", private) == 0
    assert find_version(tmp_path / "pushed", public) == version


def test_without_the_right_signature_a_version_is_refused(
    tmp_path: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = keys
    unsigned, others = (push_model(tmp_path, "a"), push_model(tmp_path, "b", make_keys(tmp_path, "other")[0]))
    ask = ("--require-signature", public, tmp_path / "image.png")
    assert told(capsys, "predict", "--model", unsigned.path, *ask) == (
        f"fpn: {unsigned.path}: is not trusted (it has no signature (model.sig)); push a signed one"
    )
    expected = f"fpn: {others.path}: is not trusted (model.sig is no signature by the key of {public}); push a signed one"
    assert told(capsys, "explain", "--model", others.path, *ask) == expected
    assert told(capsys, "predict", "--model", tmp_path / "pushed", *ask) == expected
    assert told(capsys, "score", "--model", others.path, "--data", tmp_path, "--output", tmp_path / "out", *ask[:2]) == expected
    assert not (tmp_path / "out").exists()
    assert find_version(tmp_path / "pushed") == Path(others.path)  # nobody asks for a signature
    sign(str(tmp_path / "pushed"), unsigned.number, private)
    assert find_version(tmp_path / "pushed", public) == Path(unsigned.path)


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_manifest_that_was_made_anew_for_changed_files_does_not_help(
    tmp_path: Path, keys: tuple[Path, Path], name: str
) -> None:
    private, public = keys
    version = Path(push_model(tmp_path, "a", private).path)
    flip(version / name, 5)
    forged = push(str(version), str(tmp_path / "forged"), Record(run="a"), None)
    shutil.copy(version / SIGNATURE_FILE, forged.path)
    assert find_problem(forged.path) == ""
    assert find_problem(forged.path, public) == "its files are not those that were signed"


def test_metrics_that_were_changed_with_their_checksum_are_refused(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    version = Path(push_model(tmp_path, "a", keys[0]).path)
    content = (version / RECORD_FILE).read_bytes().replace(b"0.75", b"0.99")
    (version / RECORD_FILE).write_bytes(content)
    (version / CHECKSUM_FILE).write_bytes(checksum_line(content))
    assert find_problem(str(version)) == ""
    assert find_problem(str(version), keys[1]) == "its files are not those that were signed"


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"\xff", b'{"verificationMaterial": {}}'])
def test_what_is_no_signature_is_refused(tmp_path: Path, keys: tuple[Path, Path], content: bytes) -> None:
    version = Path(push_model(tmp_path, "a", keys[0]).path)
    (version / SIGNATURE_FILE).write_bytes(content)
    assert find_problem(str(version), keys[1]) == f"model.sig is no signature by the key of {keys[1]}"


def test_a_copy_of_a_signed_version_is_signed(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    first = push_model(tmp_path, "a", keys[0])
    push_model(tmp_path, "b")
    back = roll_back(str(tmp_path / "pushed"), first.number)
    served = served_version(str(tmp_path / "pushed"), keys[1])
    assert served
    assert served.number == back.number


def test_the_same_model_pushed_with_a_key_is_signed_in_its_place(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    first = push_model(tmp_path, "a")
    assert push_model(tmp_path, "a", keys[0]).number == first.number
    assert find_version(tmp_path / "pushed", keys[1]) == Path(first.path)


def test_fpn_push_signs_the_newest_version_and_no_damaged_one(
    tmp_path: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = keys
    version = Path(push_model(tmp_path, "a").path)
    assert main(["push", "--to", str(tmp_path / "pushed"), "--sign", str(private)]) == 0
    assert capsys.readouterr().out == f"{version}: signed with {private}\n"
    assert find_version(tmp_path / "pushed", public) == version
    for number, text in (("7", "no version 7; there are"), (version.name, "is damaged (")):
        flip(version / "assets/labels", 0)
        line = told(capsys, "push", "--to", tmp_path / "pushed", "--sign", private, "--version", number)
        assert text in line
        flip(version / "assets/labels", 0) if number == "7" else None


def test_a_key_that_can_not_be_used_is_told_and_never_shown(
    tmp_path: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = keys
    push_model(tmp_path, "a")
    other = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "rsa.key").write_bytes(other)
    os.mkfifo(tmp_path / "pipe")
    for file, reason in (
        (tmp_path / "nowhere", "No such file or directory; give a file"),
        (tmp_path / "pipe", "not a regular file, but a pipe; give a file"),
        (public, "no key without a password, of an elliptic curve"),
        (tmp_path / "rsa.key", "no key without a password, of an elliptic curve"),
    ):
        line = told(capsys, "push", "--to", tmp_path / "pushed", "--sign", file)
        assert line.startswith(f"fpn: private key: {file}: {reason}")
        assert not set(file.read_text().splitlines()[1:-1] if file.is_file() else ()) & set(line.split())
    line = told(capsys, "serve", "--model", tmp_path / "pushed", "--port", "0", "--require-signature", private)
    assert line.startswith(
        f"fpn: public key: {private}: no key of an elliptic curve (P-256, P-384 or P-521) in PEM; docs/trust.md"
    )
    assert not list((tmp_path / "pushed").rglob(SIGNATURE_FILE))


def test_no_file_that_is_left_has_the_private_key(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    secret = keys[0].read_text().splitlines()[1].encode()
    push_model(tmp_path, "a", keys[0])
    left = [path for path in (tmp_path / "pushed").rglob("*") if path.is_file()]
    assert len(left) > len(FILES)
    assert not [path for path in left if secret in path.read_bytes()]


def test_the_package_that_is_missing_is_named(tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(UserError, match=r"need the package model-signing: .*'\.\[signing\]'"):
        signing.check_private_key(keys[0])
