"""The exported model says how unusual an image is, in every signature and format, and answers as without it."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from models import features, formats
from models.embedding import normalize
from models.export import export_model
from models.fitting import Fitted
from models.reference import Spread
from tests.models.test_export import SIGNATURES, inputs, run_in_session


def expected(exported, telling):
    """By NumPy, from the embedding that the model without the output gives; the least image may get half a percent more."""
    embedded = tf.saved_model.load(exported.path).signatures["embed"](tf.constant(exported.files))["embedding"].numpy()
    unusual = telling.fitted.unusual
    distances = (((embedded - unusual.distance.centre) @ unusual.distance.whitening) ** 2).sum(axis=1)
    return np.interp(distances, unusual.quantiles, np.linspace(0, 100, 201))


@pytest.mark.parametrize("signature", [*SIGNATURES, "embed", "explain", "predict_images", "session"])
def test_every_signature_says_it_and_gives_the_same_probabilities(exported, telling, signature):
    if signature == "session":
        outputs = run_in_session(telling.path, "serving_default", image_bytes=exported.files)
    elif signature == "predict_images":
        outputs = tf.saved_model.load(telling.path).signatures[signature](tf.constant(exported.pictures[..., np.newaxis]))
        assert sorted(outputs) == ["probabilities", "unusual"]
    else:
        files = inputs(exported, signature) if signature in SIGNATURES else exported.files
        more = {"label": tf.constant([""])} if signature == "explain" else {}
        outputs = tf.saved_model.load(telling.path).signatures[signature](
            **{SIGNATURES.get(signature, "image_bytes"): tf.constant(files)}, **more
        )
    outputs = {name: np.asarray(value) for name, value in outputs.items()}
    wanted = expected(exported, telling)
    assert outputs["unusual"].dtype == np.float32
    np.testing.assert_allclose(outputs["unusual"], wanted, atol=0.51)
    np.testing.assert_allclose(outputs["probabilities"], exported.probabilities, atol=1e-6)
    if "label" in outputs:
        best = [exported.names[index] for index in exported.probabilities.argmax(axis=-1)]
        answers = [
            b"unknown" if share > telling.fitted.unusual.cutoff else name for share, name in zip(wanted, best, strict=True)
        ]
        assert outputs["label"].tolist() == answers
        assert answers.count(b"unknown") == 3


@pytest.mark.parametrize("kind", ["float16", "onnx"])
def test_other_formats_say_the_same(exported, telling, kind):
    answer = formats.load(formats.convert(telling.path, kind), kind, 1)
    found = answer(exported.pictures[..., np.newaxis])
    np.testing.assert_allclose(found["probabilities"], exported.probabilities, atol=2e-3)
    np.testing.assert_allclose(found["unusual"], expected(exported, telling), atol=3 if kind == "float16" else 0.51)


def test_a_format_of_8_bits_does_not_say_it(exported, telling):
    content = formats.convert(telling.path, "int8", exported.pictures[..., np.newaxis])
    assert sorted(formats.load(content, "int8", 1)(exported.pictures[..., np.newaxis])) == ["probabilities"]


def test_a_sample_of_the_eval_split_lies_beside_the_model(exported, telling):
    answers = telling.answers
    table = pq.read_table(f"{telling.path}/{features.REFERENCE}")
    assert json.loads(table.schema.metadata[b"classes"]) == ["cat", "dog", "owl"]
    types = {name: str(table.schema.field(name).type) for name in table.column_names}
    assert types == {
        "embedding": "fixed_size_list<element: halffloat>[24]",
        "probabilities": "fixed_size_list<element: float>[3]",
        "label": "string",
        "unusual": "float",
        "true": "string",
        "group": "int64",
    }
    rows = table.to_pylist()
    first = tf.saved_model.load(telling.path).signatures["embed"](tf.constant(exported.files[:1]))
    assert rows[0]["label"] == first["label"].numpy()[0].decode()
    assert rows[0]["unusual"] == pytest.approx(float(first["unusual"][0]), abs=0.05)
    np.testing.assert_allclose(rows[0]["probabilities"], first["probabilities"][0], atol=1e-6)
    np.testing.assert_allclose([row["embedding"] for row in rows], normalize(answers.sample.embeddings), atol=1e-3)
    assert [row["group"] for row in rows] == answers.groups[answers.sample.rows].tolist()
    assert [row["true"] for row in rows] == [["cat", "dog", "owl"][number % 3] for number in answers.sample.rows]


def test_a_model_without_the_score_has_a_reference_as_well(exported, telling, tmp_path):
    graph = tft.TFTransformOutput(str(Path(exported.path).parent / "transform"))
    export_model(exported.classifier, graph, str(tmp_path), fitted=Fitted(), reference=telling.answers)
    table = pq.read_table(tmp_path / features.REFERENCE)
    assert table["unusual"].null_count == table.num_rows == 34
    assert table.schema.field("unusual").type == "float"


@pytest.mark.parametrize(("length", "most"), [(7, 10), (10, 10), (25, 10), (1_000, 10)])
def test_the_sample_is_evenly_spread_over_any_number_of_images(length, most):
    spread = Spread(most)
    values = np.arange(length, dtype=np.float32)[:, np.newaxis]
    for start in range(0, length, 3):
        spread.add(values[start : start + 3])
    kept = spread.kept()
    assert len(kept.rows) == min(length, most)
    np.testing.assert_array_equal(kept.embeddings[:, 0], kept.rows)
    ends = np.concatenate([[0], kept.rows, [length - 1]])
    assert np.diff(ends).max() <= 2 * length / most + 1


def test_the_code_of_the_docs_runs(exported, telling, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "unusual.md").read_text()
    (tmp_path / "image.png").write_bytes(exported.files[3])
    names = {"model": telling.path, "file": tmp_path / "image.png"}
    exec(page.split("```python\n")[1].split("```")[0], names)
    assert names["unusual"] == pytest.approx(expected(exported, telling)[3], abs=0.51)
    assert 0 <= names["more_unusual"] <= 34
