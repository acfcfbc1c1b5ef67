"""A file is replaced as a whole or stays as it was."""

from pathlib import Path

import pytest

from base.local_files import new_file
from models.files import replaced


@pytest.mark.parametrize("writer", [lambda path: replaced(str(path)), new_file], ids=["any file system", "local"])
def test_a_file_is_replaced_at_the_end_and_not_where_writing_fails(writer, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), writer(path) as unfinished:
        _fail(Path(unfinished))
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]
    assert path.read_text() == "old"
    with writer(path) as unfinished:
        Path(unfinished).write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


def _fail(unfinished: Path) -> None:
    unfinished.write_text("half")
    raise OSError("disk full")
