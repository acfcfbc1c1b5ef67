"""Which files are found on a disk, and which of them may be opened."""

import os
from pathlib import Path

import pytest
from data_folders import image_paths, reasons, settings, touch, user_error

from images.dataset import source
from images.dataset.listing import list_files
from images.dataset.row import LEADS_OUT


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A data folder, and images beside it."""
    touch(tmp_path / "data", *image_paths())
    touch(tmp_path / "beside", "cow/1.png", "cow/2.png", "lone.png")
    return tmp_path


def test_links_that_stay_inside_are_followed(place: Path) -> None:
    data = place / "data"
    touch(data, ".store/cow/1.png", ".store/lone.png")
    (data / "cat/linked.png").symlink_to("../.store/lone.png")
    (data / "cow").symlink_to(".store/cow")
    found = list_files(str(data))
    assert set(found) == {*image_paths(), "cat/linked.png", "cow/1.png"}
    assert found["cow/1.png"].size == found["cat/linked.png"].size == len(b"not opened")
    assert not any(file.reason for file in found.values())


def test_links_that_lead_out_are_set_aside(place: Path) -> None:
    data = place / "data"
    (data / "cat/linked.png").symlink_to("../../beside/lone.png")
    (data / "dog/absolute.png").symlink_to(place / "beside/lone.png")
    (data / "cow").symlink_to(place / "beside/cow")
    (data / "cat/detour.png").symlink_to(data / ".detour")
    (data / ".detour").symlink_to(place / "beside/lone.png")
    rows = source.read_rows(str(data), settings())
    assert reasons(rows) == dict.fromkeys(["cat/linked.png", "dog/absolute.png", "cow", "cat/detour.png"], LEADS_OUT)
    assert all(row.size == 0 for row in rows if row.reason)


def test_links_that_lead_out_are_followed_if_that_is_allowed(place: Path) -> None:
    data = place / "data"
    (data / "cat/linked.png").symlink_to("../../beside/lone.png")
    (data / "cow").symlink_to(place / "beside/cow")
    (data / "zebra").symlink_to(place / "beside/cow")  # once is enough
    found = list_files(str(data), allow_links=True)
    assert set(found) == {*image_paths(), "cat/linked.png", "cow/1.png", "cow/2.png"}
    assert not any(file.reason for file in found.values())


@pytest.mark.parametrize("allow_links", [False, True])
def test_links_to_folders_above_do_not_go_round_in_circles(allow_links: bool, place: Path) -> None:
    data = place / "data"
    (data / "cat/again").symlink_to("..")
    (data / "cat/self").symlink_to("self")
    (data / "cat/to").symlink_to("fro")
    (data / "cat/fro").symlink_to("to")
    (data / "up").symlink_to(place)
    found = list_files(str(data), allow_links)
    nowhere = {path for path, file in found.items() if file.reason == "a link that leads nowhere"}
    assert nowhere == {"cat/self", "cat/to", "cat/fro"}
    beside = {f"up/beside/{name}" for name in ("cow/1.png", "cow/2.png", "lone.png")}
    assert found.keys() - nowhere == {*image_paths(), *(beside if allow_links else {"up"})}


def test_the_data_folder_itself_may_be_a_link(place: Path) -> None:
    (place / "link").symlink_to("data")
    assert sorted(list_files(str(place / "link"))) == image_paths()


def test_what_is_no_file_is_found_and_set_aside(place: Path) -> None:
    data = place / "data"
    os.mkfifo(data / "cat/pipe.png")
    (data / "cat/device.png").symlink_to("/dev/zero")
    (data / "cat/gone.png").symlink_to("nothing.png")
    (data / "cat/folder.png").mkdir()
    touch(data, "cat/folder.png/inside.png")
    expected = {"cat/pipe.png": "not a regular file", "cat/device.png": LEADS_OUT, "cat/gone.png": "a link that leads nowhere"}
    rows = source.read_rows(str(data), settings())
    assert reasons(rows) == expected
    assert len(rows) == 84
    allowed = source.read_rows(str(data), settings(allow_links=True))
    assert reasons(allowed) == {**expected, "cat/device.png": "not a regular file"}


def test_a_name_that_is_no_text_is_set_aside(place: Path) -> None:
    (place / "data/cat" / os.fsdecode(b"H\xe4nde.png")).write_bytes(b"x")
    rows = source.read_rows(str(place / "data"), settings())
    assert reasons(rows) == {r"cat/H\xe4nde.png": "the name is not UTF-8"}
    source.fingerprint(str(place / "data"), settings())


def test_a_folder_that_can_not_be_read_is_set_aside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(place / "data", "cat/locked/1.png")
    listed = os.scandir

    def scandir(folder: str) -> object:
        if folder.endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    rows = source.read_rows(str(place / "data"), settings())
    assert reasons(rows) == {"cat/locked": "unreadable folder: Permission denied"}


def test_why_nothing_is_left_is_told(tmp_path: Path) -> None:
    touch(tmp_path / "store", *image_paths(3))
    for path in image_paths(3):
        (tmp_path / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / path).symlink_to(tmp_path / "store" / path)
    text = user_error(tmp_path / "data")
    assert "found only none; 6 of 6 are set aside, 6 of them as cat/0" in text
    assert "allow with data.allow_links" in text


def test_a_changed_file_behind_a_link_changes_the_fingerprint(place: Path) -> None:
    (place / "data/cow").symlink_to(place / "beside/cow")

    def fingerprints() -> tuple[str, str]:
        return tuple(source.fingerprint(str(place / "data"), settings(allow_links=allow)) for allow in (False, True))

    before = fingerprints()
    touch(place / "beside", "cow/3.png")
    assert fingerprints()[0] == before[0]
    assert fingerprints()[1] != before[1]
