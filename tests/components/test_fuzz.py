"""Thousands of damaged files through ingestion: no crash, every file accounted for, bounded memory and time."""

import csv
import io
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from corpus import CASES
from mutations import SEEDS, mutated_files
from pyarrow import parquet

PROJECT = Path(__file__).parents[2]
MAX_PIXELS = 20_000
LARGEST = 200_000  # kilobytes beyond what the process takes for the first few files


def write_files(folder: Path, damaged: int) -> None:
    """Two classes with good files and damaged ones, of which some are still readable."""
    for label in "ab":
        (folder / label).mkdir(parents=True)
    for number, name in enumerate(SEEDS):
        (folder / "ab"[number % 2] / f"good-{number}").write_bytes(CASES[name].encoded)
    for number, file in enumerate(mutated_files(damaged)):
        (folder / "ab"[number % 2] / f"{number:05d}.png").write_bytes(file)


def ingest(data: Path, output: Path) -> dict[str, float]:
    """Runs the component's executor on a folder; processor seconds and growth of the peak memory in kilobytes."""
    from tfx.dsl.components.base import base_beam_executor
    from tfx.types import standard_artifacts, standard_component_specs

    from components.image_example_gen.component import ImageExampleGen
    from components.image_example_gen.executor import Executor
    from pipeline.config.data import DataConfig, ImageConfig
    from pipeline.config.whole import Config
    from pipeline.dag.component_settings import ingestion_settings

    section = DataConfig(path=str(data), max_rejected=1.0, max_pixels=MAX_PIXELS, pages="all")
    image = ImageConfig(height=24, width=24, channels=1)
    component = ImageExampleGen(str(data), ingestion_settings(Config(name="fuzz", data=section, image=image)))
    examples = standard_artifacts.Examples()
    examples.uri = str(output)
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=["--runner=FnApiRunner"], tmp_dir=f"{output}-tmp", unique_id="1"
    )
    before = resource.getrusage(resource.RUSAGE_SELF)
    Executor(context).Do({}, {standard_component_specs.EXAMPLES_KEY: [examples]}, dict(component.exec_properties))
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "kilobytes": after.ru_maxrss - before.ru_maxrss}


def check_accounts(data: Path, output: Path) -> None:
    """Every file is in the index, taken or set aside with a reason; the tables agree."""
    index = parquet.read_table(output / "images.parquet").to_pylist()
    files = {str(path.relative_to(data)) for path in data.glob("*/*")}
    assert {row["path"].split("#")[0] for row in index} == files
    assert len({row["path"] for row in index}) == len(index)
    assert all(bool(row["reason"]) != bool(row["split"]) for row in index)
    summary = json.loads((output / "ingestion.json").read_text())
    rejected = list(csv.DictReader(io.StringIO((output / "rejected.csv").read_text())))
    assert summary["found"] == len(index) == sum(summary["images"].values()) + len(rejected)
    assert {row["path"]: row["reason"] for row in rejected} == {row["path"]: row["reason"] for row in index if row["reason"]}
    assert all(row["reason"].isprintable() and len(row["reason"]) <= 200 for row in rejected)
    good = [row for row in index if row["path"].split("/")[1].startswith("good")]
    assert len(good) == sum(len(CASES[name].pages) if "all" in name else 1 for name in SEEDS)
    assert not any(row["reason"] for row in good)
    assert 2 * len(good) < sum(summary["images"].values()) < len(index) - 2 * len(good)  # the damage is not of one kind


def test_a_thousand_damaged_files_are_all_accounted_for(tmp_path: Path) -> None:
    write_files(tmp_path / "data", 1_000)
    ingest(tmp_path / "data", tmp_path / "examples")
    check_accounts(tmp_path / "data", tmp_path / "examples")


@pytest.mark.extra
def test_ten_thousand_damaged_files_take_bounded_memory_and_time(tmp_path: Path) -> None:
    write_files(tmp_path / "few", 500)
    write_files(tmp_path / "many", 10_000)
    # In a process of its own, for its peak of memory, and which a crash of a library would end alone.
    program = f"""
import json, sys
sys.path[:0] = {[str(Path(__file__).parent), str(PROJECT / "tests" / "helpers")]!r}
from pathlib import Path
from test_fuzz import ingest
folder = Path({str(tmp_path)!r})
print(json.dumps([ingest(folder / name, folder / f"{{name}}-examples") for name in ("few", "many")]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    _, many = json.loads(done.stdout.splitlines()[-1])
    assert "UserWarning" not in done.stderr
    check_accounts(tmp_path / "many", tmp_path / "many-examples")
    assert many["kilobytes"] < LARGEST
    assert many["seconds"] < 90
