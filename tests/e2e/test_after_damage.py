"""Real runs after a kill, after damage, and on full disks: the same command ends well, or says in a line why not."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from metadata_records import kill_while_written

from components.pusher.versions import list_versions
from tests.sweeps import damage, kills
from tests.sweeps.runs import COMPONENTS, KEYS, Ended, Starter, check_model, write_config, write_images

pytestmark = pytest.mark.extra

PROJECT = Path(__file__).parents[2]
BEFORE_TRAINER = list(COMPONENTS[: COMPONENTS.index("Trainer")])


@dataclass(frozen=True)
class Place:
    """Where runs write, and how they are started."""

    folder: Path
    starter: Starter

    @property
    def output(self) -> Path:
        return self.folder / "out"

    @property
    def arguments(self) -> list[str]:
        return ["run", "--config", str(self.folder / "config.yaml"), "--output", str(self.output), "--json"]

    def run(self, *more: str) -> Ended:
        return self.starter.run([*self.arguments, *more])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, starter: Starter) -> Place:
    folder = tmp_path_factory.mktemp("damage")
    write_images(folder / "data")
    write_config(folder / "config.yaml", folder / "data")
    return Place(folder, starter)


@pytest.fixture(scope="module")
def first(place: Place) -> Ended:
    ended = place.run()
    assert ended.status == 0, ended.stderr
    return ended


@pytest.fixture(scope="module")
def killed(place: Place, first: Ended) -> tuple[Ended, Ended]:
    """What `fpn runs` and the same command say after the store was left half-written, and a bit of the model flipped."""
    kill_while_written(place.output / "metadata.sqlite")
    (weights,) = place.output.glob("artifacts/Trainer/model/*/Format-Serving/variables/variables.data*")
    damage.DAMAGES["flipped, time as before"](weights)
    listed = place.starter.run(["runs", "--output", str(place.output), "--json"])
    return listed, place.run()


def test_after_a_kill_the_runs_are_listed_and_the_same_command_ends_well(
    place: Place, first: Ended, killed: tuple[Ended, Ended]
) -> None:
    listed, again = killed
    assert listed.status == 0, listed.stderr
    assert [run["pushed"] for run in listed.summary["runs"]] == [first.summary["pushed_model"]]
    assert again.status == 0, again.stderr
    assert again.summary["metrics"] == first.summary["metrics"]
    assert "metadata.sqlite: what a killed run had recorded in part was rolled back" in again.summary["notes"]
    for note in again.summary["notes"]:
        assert note in again.stderr


def test_a_changed_model_does_not_come_from_the_cache_and_what_is_pushed_is_what_was_made(
    place: Place, first: Ended, killed: tuple[Ended, Ended]
) -> None:
    again = killed[1]
    assert again.states("cached") == BEFORE_TRAINER
    (note,) = (note for note in again.summary["notes"] if note.startswith("Trainer was run again"))
    assert "variables.data-00000-of-00001 has other contents" in note
    image = next((place.folder / "data").glob("*/*.png"))
    for version in list_versions(str(place.output / "pushed")):
        checked = place.starter.call(check_model, version.path, str(image))
        assert checked.status == 0, checked.stderr


def _run_and_damage_the_model_before_the_push(arguments: list[str]) -> None:
    from pipeline.cli import main
    from pipeline.local.launcher import CheckingLauncher

    prepare = CheckingLauncher._prepare_execution

    def damaging(launcher: CheckingLauncher) -> object:
        prepared = prepare(launcher)
        if launcher._pipeline_node.node_info.id == "Pusher":
            (model,) = prepared.execution_info.input_dict["model"]
            os.truncate(f"{model.uri}/Format-Serving/saved_model.pb", 1000)
        return prepared

    CheckingLauncher._prepare_execution = damaging  # type: ignore[method-assign]
    os._exit(main(arguments))


def test_a_model_that_changes_just_before_the_push_is_named_and_not_pushed(place: Place, killed: tuple[Ended, Ended]) -> None:
    before = list_versions(str(place.output / "pushed"))
    ended = place.starter.call(_run_and_damage_the_model_before_the_push, [*place.arguments, "--set", "push.keep=3"])
    assert ended.status == 2, ended.stderr
    (line,) = (line for line in ended.stderr.splitlines() if line.startswith("fpn: "))
    assert "saved_model.pb has 1000 bytes instead of" in line
    assert line.endswith("so it is not pushed; start the run again, which makes it again")
    assert "Traceback" not in ended.stderr
    assert list_versions(str(place.output / "pushed")) == before


in_namespace = pytest.mark.skipif(
    not shutil.which("unshare")
    or subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False).returncode
    != 0,
    reason="mounting is not allowed here",
)


@in_namespace
def test_a_disk_that_is_full_at_the_start_is_told_in_a_line_and_the_json_is_complete(place: Place, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline.cli", *place.arguments[:3], "--output", str(tmp_path / "disk" / "out"), "--json"]
    (tmp_path / "disk").mkdir()
    mounted = f'mount -t tmpfs -o size=40k none {tmp_path}/disk && exec "$0" "$@"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mounted, *command], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    ended = Ended(done.returncode, done.stdout, done.stderr, 0)
    assert ended.status == 1, ended.stderr
    assert [line for line in ended.stderr.splitlines() if line.startswith("fpn: ")] == ended.stderr.splitlines()[-1:]
    assert ": the disk is full; make room, and do the same again" in ended.stderr
    assert str(tmp_path) in ended.stderr
    assert set(KEYS) <= set(ended.summary)


@in_namespace
def test_a_disk_that_is_full_in_any_component_is_told_and_with_room_the_same_command_ends_well() -> None:
    command = [sys.executable, "-m", "tests.sweeps.disks", "--left", "0"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 problems" in done.stdout


def test_no_killed_run_is_lost_or_locks_its_folder(tmp_path: Path) -> None:
    outcomes = kills.sweep(tmp_path, {"random": 2, "store": 1, "journal": 1}, jobs=2)
    assert not [outcome for outcome in outcomes if outcome.problem]


def test_a_damaged_file_is_made_again_or_named_and_never_pushed(tmp_path: Path) -> None:
    outcomes = damage.sweep(tmp_path, sample=3, folders=["artifacts/Transform"])
    assert not [outcome for outcome in outcomes if outcome.problem]
