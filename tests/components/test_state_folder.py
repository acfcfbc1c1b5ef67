"""What a run is compared with where there is no metadata store."""

from pathlib import Path

import pytest
from tfx.types import artifact_utils, standard_artifacts

from components.earlier_runs.state_folder import keep_statistics, last_digest, previous_statistics


@pytest.fixture
def state(tmp_path):
    return str(tmp_path / "state")


def statistics(folder: Path, content: str) -> standard_artifacts.ExampleStatistics:
    artifact = standard_artifacts.ExampleStatistics()
    artifact.uri, artifact.split_names = str(folder / content), artifact_utils.encode_split_names(["train", "eval"])
    for split in ("train", "eval"):
        (folder / content / f"Split-{split}").mkdir(parents=True, exist_ok=True)
        (folder / content / f"Split-{split}" / "FeatureStats.pb").write_text(content)
    return artifact


def read(found: standard_artifacts.ExampleStatistics | None) -> str | None:
    return found and (Path(found.uri) / "Split-eval" / "FeatureStats.pb").read_text()


@pytest.mark.parametrize(
    ("runs", "current", "expected"),
    [("", "a", None), ("a", "a", None), ("a", "b", "a"), ("abb", "b", "a"), ("abc", "d", "c"), ("aba", "a", "b")],
)
def test_previous_statistics_are_the_last_that_are_not_the_runs_own(tmp_path, state, runs, current, expected):
    for content in runs:
        keep_statistics(state, statistics(tmp_path, content))
    found = previous_statistics(state, statistics(tmp_path, current))
    assert read(found) == expected
    assert found is None or artifact_utils.decode_split_names(found.split_names) == ["train", "eval"]


def test_only_the_statistics_that_may_be_needed_are_kept(tmp_path, state):
    for content in "abcd":
        keep_statistics(state, statistics(tmp_path, content))
    kept = [path for path in (tmp_path / "state" / "statistics").iterdir() if path.is_dir()]
    assert len(kept) == 2


def test_the_digest_changes_with_the_last_statistics(tmp_path, state):
    digests = [last_digest(state)]
    for content in "abb":
        keep_statistics(state, statistics(tmp_path, content))
        digests.append(last_digest(state))
    assert digests[0] == "none"
    assert len(set(digests)) == 3
    assert digests[2] == digests[3]
