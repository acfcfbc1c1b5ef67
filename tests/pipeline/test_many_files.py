"""The cost of a listing grows with the number of files and no faster; tests.sweeps.million measures a million."""

import shutil
from pathlib import Path

import pytest

from tests.sweeps import million

FEW, MANY = 5_000, 50_000


@pytest.mark.parametrize("manifest", [False, True], ids=["folders", "manifest"])
def test_fpn_init_takes_little_time_and_memory_for_each_file(manifest: bool, tmp_path: Path) -> None:
    few, many = (million.measure_init(tmp_path, files, manifest) for files in (FEW, MANY))
    shutil.rmtree(tmp_path / "data")
    assert (many.processor - few.processor) / (MANY - FEW) < 50e-6  # 60 s for a million; 18e-6 s were measured
    assert few.peak + (many.peak - few.peak) / (MANY - FEW) * 1e6 < 1e9
