"""What the pipeline needs when it runs is under licences that let it be used anywhere."""

import re
import sys
from email.message import Message

import pytest

from scripts import list_licences

ROWS = dict(
    re.findall(r"^\| ([a-z0-9][a-z0-9-]*) \| (.+?) \|", list_licences.PAGE.read_text(encoding="utf-8"), re.MULTILINE)[1:]
)


def test_nothing_that_is_needed_is_under_the_gpl_or_the_agpl():
    found = {name: list_licences.licence(name) for name in list_licences.needed()}
    assert len(found) > 200
    assert [name for name, licence in {**ROWS, **found}.items() if list_licences.is_copyleft(licence)] == []


@pytest.mark.skipif(sys.platform != "linux", reason="the page is of Linux")
def test_the_page_has_what_is_needed():
    for name, extra in list_licences.needed().items():
        assert name in ROWS, "run .venv/bin/python -m scripts.list_licences"
        assert extra == "gpu" or ROWS[name] == list_licences.licence(name), "run .venv/bin/python -m scripts.list_licences"


def test_an_installed_package_under_the_gpl_is_found_out(tmp_path, monkeypatch):
    (tmp_path / "planted-1.dist-info").mkdir()
    (tmp_path / "planted-1.dist-info" / "METADATA").write_text("Name: planted\nVersion: 1\nLicense: GNU GPL\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert list_licences.is_copyleft(list_licences.licence("planted"))


def test_the_page_has_only_what_is_locked():
    lock = (list_licences.ROOT / "requirements.lock").read_text()
    assert set(ROWS) <= set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))


@pytest.mark.parametrize(
    ("fields", "expected", "refused"),
    [
        ({"License-Expression": "GPL-3.0-or-later"}, "GPL-3.0-or-later", True),
        ({"License-Expression": "MIT AND AGPL-3.0-only"}, "MIT AND AGPL-3.0-only", True),
        ({"License-Expression": "GPL-2.0-only AND (MIT OR BSD-3-Clause)"}, "GPL-2.0-only AND (MIT OR BSD-3-Clause)", True),
        ({"License-Expression": "MIT OR GPL-3.0-only"}, "MIT OR GPL-3.0-only", False),
        ({"License-Expression": "LGPL-2.1-or-later"}, "LGPL-2.1-or-later", False),
        ({"License": "MPL-2.0", "Classifier": "License :: OSI Approved"}, "MPL-2.0", False),
        ({"License": "MIT", "Classifier": "License :: OSI Approved :: GNU Affero General Public License v3"}, None, True),
        ({"License": "GNU GENERAL PUBLIC LICENSE\nVersion 2 ..."}, "GNU GENERAL PUBLIC LICENSE", True),
        ({"License": "GPL v2 or later", "Classifier": "License :: OSI Approved :: MIT License"}, "GPL v2 or later", True),
        (
            {"Classifier": "License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)"},
            "GNU Lesser General Public License v3 (LGPLv3)",
            False,
        ),
        (
            {"License": "Copyright 2015\nall of it", "Classifier": "License :: OSI Approved :: BSD License"},
            "BSD License",
            False,
        ),
    ],
)
def test_a_package_says_what_its_licence_is(fields, expected, refused):
    metadata = Message()
    for name, value in fields.items():
        metadata[name] = value
    found = list_licences.stated(metadata)
    assert found == (expected or found)
    assert list_licences.is_copyleft(found) == refused
