"""What ImageExampleGen promises about its examples: declared by the writer, asked for by the reader."""

from pathlib import Path

from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils
from tfx.types import standard_artifacts

from images.layout import Shard, declare_layout, decoded_folder, find_layout
from images.shards import link_or_copy

SHARDS = [Shard("a", 1), Shard("b", 2)]


def examples_in(folder: Path) -> standard_artifacts.Examples:
    examples = standard_artifacts.Examples()
    examples.uri = str(folder)
    return examples


def test_what_was_declared_is_found(tmp_path: Path) -> None:
    examples = examples_in(tmp_path)
    declare_layout(examples, SHARDS, "copy")
    found = find_layout(examples)
    assert found
    assert (found.shards, found.decoded) == (SHARDS, None)


def test_decoded_examples_are_found_if_there_are_any(tmp_path: Path) -> None:
    examples = examples_in(tmp_path)
    Path(decoded_folder(examples.uri)).mkdir()
    declare_layout(examples, SHARDS, "copy")
    found = find_layout(examples)
    assert found
    assert found.decoded == str(tmp_path / "decoded")


def test_examples_with_pixels_in_place_of_files_are_the_decoded_ones(tmp_path: Path) -> None:
    examples = examples_in(tmp_path)
    declare_layout(examples, SHARDS, "reference")
    found = find_layout(examples)
    assert found
    assert found.decoded == str(tmp_path)


def test_files_that_look_like_it_promise_nothing(tmp_path: Path) -> None:
    declare_layout(examples_in(tmp_path), SHARDS, "copy")
    assert find_layout(examples_in(tmp_path)) is None


def test_what_was_declared_is_found_behind_kubeflow(tmp_path: Path) -> None:
    """Its launcher keeps an artifact's metadata as one structure, of which TFX makes the properties again."""
    declared = examples_in(tmp_path)
    declare_layout(declared, SHARDS, "copy")
    message = kubeflow_v2_entrypoint_utils.to_runtime_artifact(declared, {})
    message.type.schema_title = "tfx.Examples"
    inputs = {"examples": pipeline_spec_pb2.ArtifactList(artifacts=[message])}
    (examples,) = kubeflow_v2_entrypoint_utils.parse_raw_artifact_dict(inputs, {})["examples"]
    found = find_layout(examples)
    assert found
    assert found.shards == SHARDS


def test_a_second_name_that_a_killed_run_has_left_is_made_again(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"examples")
    for _ in range(2):
        link_or_copy(str(old), str(new))
    assert old.read_bytes() == new.read_bytes() == b"examples"
