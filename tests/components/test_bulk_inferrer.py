"""BulkInferrer on examples of unlabelled images, and the tables that answers go into."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from executors import SETTINGS, context, make_artifact
from pyarrow import parquet
from tfx.types import artifact_utils, channel_utils, standard_artifacts

from components.bulk_inferrer import scores
from components.bulk_inferrer.component import ImageBulkInferrer
from components.bulk_inferrer.executor import Executor
from components.bulk_inferrer.model import Answers, Image
from components.bulk_inferrer.settings import InferrerSettings
from components.image_example_gen import executor as ingestion
from components.image_example_gen.component import ScoreExampleGen
from evaluation.settings import GroupRule

MEAN = GroupRule(rule="mean", share=0.1, positive=None)


def infer(exported, place, blessed):
    data = place / "data"
    data.mkdir()
    for number, file in enumerate(exported.files):
        (data / f"{number}.png").write_bytes(file)
    (data / "cut.png").write_bytes(exported.files[0][:-30])
    examples = make_artifact(standard_artifacts.Examples, place, "ScoreExampleGen", "examples", 1)
    properties = dict(ScoreExampleGen(str(data), SETTINGS).exec_properties)
    ingestion.Executor(context(place, 1)).Do({}, {"examples": [examples]}, properties)
    model = make_artifact(standard_artifacts.Model, place, "Trainer", "model", 2)
    (Path(model.uri) / "Format-Serving").symlink_to(exported.path)
    blessing = make_artifact(standard_artifacts.ModelBlessing, place, "Evaluator", "blessing", 3)
    blessing.set_int_custom_property("blessed", int(blessed))
    inputs = {"examples": [examples], "model": [model], "model_blessing": [blessing]}
    component = ImageBulkInferrer(
        **{name: channel_utils.as_channel(found) for name, found in inputs.items()},
        settings=InferrerSettings(batch_size=4, embeddings=False, groups=MEAN),
        code="",
    )
    result = make_artifact(standard_artifacts.InferenceResult, place, "BulkInferrer", "inference_result", 4)
    Executor(context(place, 4)).Do(inputs, {"inference_result": [result]}, dict(component.exec_properties))
    return examples, Path(result.uri)


def test_a_blessed_model_answers_all_unlabelled_examples(exported, tmp_path):
    examples, result = infer(exported, tmp_path, blessed=True)
    assert artifact_utils.decode_split_names(examples.split_names) == ["unlabelled"]
    table = parquet.read_table(result / "scores").to_pandas().set_index("path").sort_index()
    assert table.index.tolist() == [f"{number}.png" for number in range(7)]
    np.testing.assert_allclose(np.stack(table["probabilities"].to_list()), exported.probabilities, atol=1e-6)
    assert table["true_label"].isna().all()
    assert json.loads((result / "summary.json").read_text())["images"] == 7
    assert "cut.png,,truncated" in (Path(examples.uri) / "rejected.csv").read_text()


def test_a_model_that_is_not_blessed_answers_nothing(exported, tmp_path):
    assert list(infer(exported, tmp_path, blessed=False)[1].iterdir()) == []


@pytest.fixture
def tables(tmp_path):
    """Writes answers for images of few groups in two shards, and gives them as arrays."""

    def write(multi_label):
        generator = np.random.default_rng(3)
        values = generator.dirichlet([1, 1, 1], 40).astype(np.float32)
        if multi_label:
            values = generator.random((40, 3), np.float32)
        groups = [f"g{number}" for number in generator.integers(0, 9, 40)]
        found = scores.Tables(str(tmp_path), ["a", "b", "c"], multi_label, 2)
        for shard, part in enumerate((slice(0, 25), slice(25, 40))):
            images = [Image(str(number), groups[number], ("b", "yak"), b"") for number in range(40)[part]]
            found.write(shard, [Answers(images, ["a"] * len(images), values[part], [])])
        return found, values, np.array(groups)

    return write


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("multi_label", [False, True])
def test_groups_are_decided_by_the_rule_however_many_parts_they_are_read_in(tables, tmp_path, monkeypatch, multi_label, parts):
    found, values, groups = tables(multi_label)
    monkeypatch.setattr(scores, "_GROUP_BYTES", values.nbytes // parts)
    counts = found.finish(GroupRule(rule="share", share=0.3, positive="c"))
    decided = pd.read_parquet(tmp_path / "groups.parquet").set_index("group")
    assert sorted(decided.index) == sorted(set(groups))
    assert counts.groups == len(decided)
    for group, row in decided.iterrows():
        members = values[groups == group]
        answers = members >= 0.5 if multi_label else np.eye(3)[members.argmax(axis=1)]
        is_c = answers[:, 2].mean() >= 0.3
        assert ("c" in row["label"].split("|")) == is_c
        assert row["images"] == len(members)
        assert row["true_label"] == "b"
        if multi_label:
            names = [name for name, share in zip("ab", answers[:, :2].mean(axis=0), strict=True) if share >= 0.5]
            assert row["label"] == "|".join([*names, *(["c"] if is_c else [])])
        elif not is_c:
            best = max("ab", key=lambda name: (answers[:, "ab".index(name)].sum(), members[:, "ab".index(name)].sum()))
            assert row["label"] == best


def test_images_without_an_answer_are_counted_of_several_labels_as_well(tmp_path):
    found = scores.Tables(str(tmp_path), ["a", "b"], True, 1)
    images = [Image(str(number), str(number), (), b"") for number in range(4)]
    found.write(0, [Answers(images, ["a|b", "unknown", "unknown", ""], np.full((4, 2), 0.5, np.float32), [])])
    assert found.finish(GroupRule(rule="mean", share=0.1, positive=None)).labels == {"a": 1, "b": 1, "unknown": 2}
