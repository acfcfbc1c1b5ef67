"""Outputs are believed only as far as they are what was made."""

import os
import shutil

import pytest

from storage.made_files import begin_records, find_change, is_whole, record_files


@pytest.fixture
def output(tmp_path):
    folder = tmp_path / "Trainer" / "model" / "17"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"index")
    (folder / "empty").touch()
    return folder


@pytest.fixture
def digest(output):
    return record_files(str(output))


def change(output, digest, contents=False):
    return find_change(str(output), digest, contents=contents)


def test_what_is_as_it_was_made_has_not_changed(output, digest):
    assert change(output, digest) == ""
    assert change(output, digest, contents=True) == ""


def test_a_file_more_is_a_change_unless_it_is_hidden(output, digest):
    (output / ".DS_Store").touch()
    assert change(output, digest) == ""
    (output / "variables" / "more").touch()
    assert change(output, digest) == f"{output / 'variables' / 'more'} was not there when it was made"


def test_a_copy_with_other_times_is_the_same(output, digest):
    shutil.copytree(output, output.parent / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(output)
    shutil.move(output.parent / "copy", output)
    assert change(output, digest) == ""


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index"])
def test_a_file_that_is_gone_shorter_or_other_is_named(output, digest, name):
    path = output / name
    path.write_bytes(path.read_bytes()[:-1])
    assert change(output, digest) == f"{path} has 4 bytes instead of 5"
    path.write_bytes(b"other")
    assert change(output, digest) == f"{path} has other contents"
    path.unlink()
    assert change(output, digest) == f"{path} is gone"
    shutil.rmtree(output)
    assert change(output, digest) == f"{output} is gone"


def test_contents_are_compared_behind_an_equal_time_where_asked(output, digest):
    path = output / "saved_model.pb"
    times = path.stat()
    path.write_bytes(b"grapH")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert change(output, digest) == ""
    assert change(output, digest, contents=True) == f"{path} has other contents"


def test_a_record_cannot_be_lost_or_changed_without_a_word(output, digest):
    record = output.parents[1] / ".system" / "files" / "model" / "17.json"
    text = record.read_text()
    record.write_text(text.replace("graph", "grap") + " ")
    assert change(output, digest) == f"{record} has changed"
    record.write_text("[")
    assert change(output, digest) == f"{record} can't be read"
    record.unlink()
    assert change(output, digest) == f"{record} is gone"


def test_where_records_are_kept_an_output_without_one_was_left_unfinished(tmp_path, output):
    assert is_whole(str(output))  # as on Kubeflow, or in a component's own test
    begin_records(str(output))
    assert not is_whole(str(output))
    record_files(str(output))
    assert is_whole(str(output))
