"""The cost of a listing grows with the number of files and no faster; tests.sweeps.million measures a million."""

import shutil
from pathlib import Path

import pytest

from tests.sweeps import million

FEW, MANY = 5_000, 50_000
TIMES = 3  # the least counts: what else a machine does only adds, and a start takes as long as 50,000 files do
PLAIN_LISTING = (
    "import pathlib, sys; "
    "found = [(str(path), path.stat().st_size) for path in sorted(pathlib.Path(sys.argv[1]).rglob('*')) if path.is_file()]; "
    "assert len(found) >= int(sys.argv[2])"
)


@pytest.mark.parametrize("manifest", [False, True], ids=["folders", "manifest"])
def test_fpn_init_takes_little_time_and_memory_for_each_file(manifest: bool, tmp_path: Path) -> None:
    processor, plain, peak = {}, {}, {}
    for files in (FEW, MANY):
        million.write_data(tmp_path, files, manifest)
        costs = [million.measure_init(tmp_path) for _ in range(TIMES)]
        processor[files], peak[files] = (min(getattr(cost, name) for cost in costs) for name in ("processor", "peak"))
        listing = ("-c", PLAIN_LISTING, str(tmp_path / "data"), str(files))
        plain[files] = min(million.cost_of(*listing).processor for _ in range(TIMES))
    shutil.rmtree(tmp_path / "data")
    # 60 s for a million where the plain listing takes 15 s; 1.3 to 2.5 times were measured
    assert processor[MANY] - processor[FEW] < 4 * (plain[MANY] - plain[FEW])
    assert peak[FEW] + (peak[MANY] - peak[FEW]) / (MANY - FEW) * 1e6 < 1e9
