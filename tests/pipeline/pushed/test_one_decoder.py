"""What trained is what serves: files of all formats get the same answers everywhere; a bad one costs itself alone."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from corpus import CASES, GREY, RGB, dicom, image_of, save, tiff
from pyarrow import parquet
from serving_process import Server, encode, serving

from images.file_settings import FileSettings
from images.files.decoding import normalise
from images.loading import Decoder
from models import features
from models.decoding import decode_image
from pipeline.cli import main
from pipeline.config.data import ImageConfig
from pipeline.dag.component_settings import image_settings
from pipeline.pushed.prediction import predict

FILES = {name: case.encoded for name, case in CASES.items() if case.pages and not case.settings}
SETTINGS = FileSettings(max_pixels=1_000_000, pages="first", intensity="type", window=None)
REFUSED = re.compile(r"convert string: ([\w ]+): the model (?:reads PNG and JPEG; convert it to PNG|does not look into it)")
CUT = save(GREY, "PNG")[:-40]
SENTENCES = ("Graph execution error", "Detected at node", "Traceback", "tensorflow")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of each format, named by its number."""
    place = tmp_path_factory.mktemp("formats")
    for number, file in enumerate(FILES.values()):
        (place / f"{number:03}").write_bytes(file)
    return place


@pytest.fixture(scope="module")
def expected(exported) -> np.ndarray:
    """The probabilities that the network gives to the pixels of ingestion, [files, classes]."""
    decoder = Decoder(image_settings(ImageConfig(height=24, width=20, channels=1)))
    found = decoder.decode([normalise(file, "", SETTINGS)[0].encoded for file in FILES.values()])
    pixels = np.stack([each.pixels for each in found])
    views = [exported.classifier(images, training=False) for images in (pixels, pixels[:, :, ::-1])]
    return tf.nn.softmax((views[0] + views[1]) / 2 / 1.7).numpy()


@pytest.fixture(scope="module")
def server(exported) -> Iterator[Server]:
    with serving(Path(exported.path)) as started:
        yield started


def probabilities(answers: list[dict[str, Any]]) -> np.ndarray:
    return np.array([list(answer["probabilities"].values()) for answer in answers])


def test_the_files_differ_for_the_network(expected: np.ndarray) -> None:
    assert len(FILES) > 100
    assert len(np.unique(expected.round(5), axis=0)) > 20


@pytest.mark.case(4, 5, 6)
def test_fpn_predict_answers_all_formats_with_the_pixels_of_ingestion(exported, folder: Path, expected: np.ndarray) -> None:
    answers, failures = predict(Path(exported.path), sorted(folder.iterdir()))
    assert failures == []
    np.testing.assert_allclose(probabilities(answers), expected, atol=1e-5)


@pytest.mark.case(4, 5, 6)
def test_fpn_score_answers_all_formats_with_the_pixels_of_ingestion(
    exported, folder: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    assert main(["score", "--model", exported.path, "--data", str(folder), "--output", str(tmp_path / "out")]) == 0
    table = parquet.read_table(tmp_path / "out/scores").to_pandas().set_index("path").sort_index()
    assert list(table.index) == [f"{number:03}" for number in range(len(FILES))]
    np.testing.assert_allclose(np.stack(table["probabilities"]), expected, atol=1e-5)


@pytest.mark.case(4, 5, 6)
def test_fpn_serve_answers_all_formats_with_the_pixels_of_ingestion(server: Server, expected: np.ndarray) -> None:
    files = list(FILES.values())
    for start in range(0, len(files), 40):
        status, answer = server.predict(files[start : start + 40])
        assert status == 200, answer
        found = [row["probabilities"] for row in answer["predictions"]]
        np.testing.assert_allclose(found, expected[start : start + 40], atol=1e-5)
    body = json.dumps({"instances": [{"image_bytes": {"b64": encode(FILES["gif with a transparent colour"])}, "label": "owl"}]})
    status, answer = server.ask("POST", "/v1/models/fpn:explain", body)
    number = list(FILES).index("gif with a transparent colour")
    np.testing.assert_allclose(answer["predictions"][0]["probabilities"], expected[number], atol=1e-5)


@pytest.mark.case(4, 5, 6)
def test_the_bare_model_answers_with_the_pixels_of_ingestion_or_names_the_format(exported, expected: np.ndarray) -> None:
    model = tf.saved_model.load(exported.path).signatures["serving_default"]
    refused = {}
    for (name, file), probabilities in zip(FILES.items(), expected, strict=True):
        try:
            found = model(image_bytes=tf.constant([file]))["probabilities"]
        except tf.errors.InvalidArgumentError as error:
            refused[name] = REFUSED.findall(error.message)[0]
        else:
            np.testing.assert_allclose(found[0], probabilities, atol=1e-5, err_msg=name)
    own = {name: reason for name, reason in refused.items() if name.startswith(("jpeg ", "png "))}
    assert own == {
        "jpeg CMYK": "CMYK JPEG",
        "png of orientation 6 by Exif in a text": "PNG with metadata as compressed text",
        "png of orientation 6 by compressed XMP": "PNG with metadata as compressed text",
    }
    names = {name.split()[0]: reason for name, reason in refused.items() if name not in own}
    assert names == {
        "gif": "GIF",
        "bmp": "BMP",
        "webp": "WebP",
        "ppm": "PNM",
        "pgm": "PNM",
        "tiff": "TIFF",
        "avif": "AVIF",
        "jpeg2000": "JPEG 2000",
        "dicom": "DICOM",
    }


def test_the_graph_turns_pictures_as_pillow_reads_their_metadata() -> None:
    decode = tf.function(decode_image, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)

    def turned(order: str, kind: int, count: int, value: int, entries: int = 1) -> bytes:
        size = {3: 2, 4: 4, 1: 1}.get(kind, 4)
        big = order == "MM"

        def number(of: int, length: int) -> bytes:
            return of.to_bytes(length, "big" if big else "little")

        entry = number(0x0112, 2) + number(kind, 2) + number(count, 4) + number(value, size).ljust(4, b"\0")
        other = number(0x010F, 2) + number(2, 2) + number(2, 4) + b"a\0\0\0"
        return b"Exif\0\0" + order.encode() + number(42, 2) + number(8, 4) + number(entries, 2) + other + entry + bytes(4)

    blocks = [turned(order, kind, 1, value, 2) for order in ("II", "MM") for kind in (1, 3, 4) for value in range(10)]
    blocks += [turned("II", 3, 2, 6, 2), turned("II", 2, 1, 6, 2), turned("MM", 3, 1, 6, 1), turned("MM", 3, 1, 6, 900)]
    blocks += [
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0nothing",
        turned("II", 3, 1, 6, 2)[:20],
    ]
    blocks += [b"Exif\0\0" + turned("II", 3, 1, 6, 2)]
    xmp = [
        b'<x tiff:Orientation="8"/>',
        b"<tiff:Orientation>5</tiff:Orientation>",
        b"<tiff:Orientation x>5<",
        b"no tiff:Orientation",
    ]
    files = [save(RGB, "JPEG", exif=block) for block in blocks]
    files += [save(RGB, "JPEG", xmp=text) for text in xmp]
    files += [save(RGB, "JPEG", exif=turned("II", 3, 1, value, 2), xmp=xmp[0]) for value in (1, 3)]
    files += [save(RGB, "JPEG", exif=turned("II", 3, 1, 3, 1), xmp=xmp[0])]  # the block has no orientation in its one entry
    for file in files:
        image = normalise(file, "", SETTINGS)[0]
        np.testing.assert_allclose(decode(file), decode(image.encoded), atol=1e-3, err_msg=str(file[:120]))
        assert decode(file).shape[:2] == (image.height, image.width)


# A file that can't be read costs that file alone


@pytest.fixture(scope="module")
def mixed(exported, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Good files and bad ones, of each way to be bad."""
    place = tmp_path_factory.mktemp("mixed")
    files = {
        "0.png": exported.files[0],
        "cut.png": CUT,
        "1.png": exported.files[1],
        "notes.txt": b"no image",
        "cut.tif": tiff(GREY)[:400],
        "2.png": exported.files[2],
        "cut.jpg": save(image_of(RGB), "JPEG")[:-100],
    }
    for name, file in files.items():
        (place / name).write_bytes(file)
    return [str(place / name) for name in (*files, "gone.png")]


REASONS = {
    "notes.txt": "not an image",
    "cut.tif": "damaged: the file ends before its pixels",
    "gone.png": "No such file or directory",
    "cut.png": "truncated: the end of the file is missing",
    "cut.jpg": "truncated: the end of the file is missing",
}


def check_told(captured: Any, images: list[str]) -> dict[str, Any]:
    """Each bad file has a line with its reason; returns the JSON."""
    lines = [line for line in captured.err.splitlines() if line.startswith("fpn: ")]
    assert len(lines) == len(REASONS)
    for name, reason in REASONS.items():
        (line,) = [line for line in lines if f"/{name}: " in line]
        assert f"{name}: {reason}; give an image file, such as PNG or JPEG" in line
    assert not any(sentence in captured.err + captured.out for sentence in SENTENCES)
    answer = json.loads(captured.out.splitlines()[-1])
    assert {Path(item["image"]).name: item["reason"] for item in answer["failures"]} == REASONS
    return answer


@pytest.mark.case(7)
def test_fpn_predict_answers_the_good_files_and_names_the_bad_ones(
    exported, mixed: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "--model", exported.path, *mixed, "--json"]) == 2
    answer = check_told(capfd.readouterr(), mixed)
    assert [Path(item["image"]).name for item in answer["predictions"]] == ["0.png", "1.png", "2.png"]
    np.testing.assert_allclose(probabilities(answer["predictions"]), exported.probabilities[:3], atol=1e-5)
    assert main(["predict", "--model", exported.path, mixed[1], "--json"]) == 2
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["predictions"] == []


@pytest.mark.case(7)
def test_fpn_explain_explains_the_good_files_and_names_the_bad_ones(
    exported, mixed: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "--model", exported.path, "--output", str(tmp_path), *mixed, "--json"]) == 2
    answer = check_told(capfd.readouterr(), mixed)
    assert [Path(item["image"]).name for item in answer["explanations"]] == ["0.png", "1.png", "2.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png", "2.png"]


@pytest.mark.case(7)
def test_fpn_score_answers_the_good_files_and_says_how_many_are_bad(
    exported, mixed: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data, out = str(Path(mixed[0]).parent), str(tmp_path / "out")
    assert main(["score", "--model", exported.path, "--data", data, "--output", out, "--json"]) == 2
    captured = capfd.readouterr()
    assert f"fpn: 4 of 7 files have no answer; {out}/rejected.csv has the reasons" in captured.err
    answer = json.loads(captured.out.splitlines()[-1])
    assert (answer["images"], answer["rejected"]) == (3, 4)


@pytest.mark.case(7)
def test_fpn_serve_answers_the_good_images_and_names_the_bad_ones(server: Server, exported) -> None:
    cut_tiff, text = tiff(GREY)[:400], b"no image"
    status, answer = server.predict([exported.files[0], CUT, exported.files[1], text, cut_tiff, exported.files[2]])
    assert status == 400
    assert answer["error"] == "instances[1]: truncated: the end of the file is missing; and 2 more"
    assert answer["failures"] == [
        {"instance": 1, "error": "truncated: the end of the file is missing"},
        {"instance": 3, "error": "not an image"},
        {"instance": 4, "error": "damaged: the file ends before its pixels"},
    ]
    good = [row["probabilities"] for row in answer["predictions"] if row]
    assert [row is None for row in answer["predictions"]] == [False, True, False, True, True, False]
    np.testing.assert_allclose(good, exported.probabilities[:3], atol=1e-5)
    status, answer = server.predict([CUT])
    assert (status, answer["error"]) == (400, "instances[0]: truncated: the end of the file is missing")
    assert answer["predictions"] == [None]
    body = json.dumps({"instances": [{"image_bytes": {"b64": encode(file)}} for file in (exported.files[0], CUT)]})
    status, answer = server.ask("POST", "/v1/models/fpn:explain", body)
    assert (status, answer["predictions"][1], "pictures" in answer["predictions"][0]) == (400, None, True)
    body = json.dumps({"inputs": [{"b64": encode(file)} for file in (exported.files[0], CUT)]})
    status, answer = server.ask("POST", "/v1/models/fpn:predict", body)
    assert (status, [item["instance"] for item in answer["failures"]]) == (400, [1])


def example_of(*files: bytes) -> bytes:
    image = tf.train.Feature(bytes_list=tf.train.BytesList(value=files))
    return tf.train.Example(features=tf.train.Features(feature={features.ENCODED: image})).SerializeToString()


@pytest.mark.case(6)
@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (b"", "empty file"),
        (b"\xff\xd8\xff" + bytes(100), "damaged"),
        (dicom(GREY)[:-100], "damaged"),
        (FILES["bmp of 1 bit"][:-10], "damaged"),
        (save(image_of(RGB), "PNG")[:60] + bytes(20) + save(image_of(RGB), "PNG")[80:], "damaged: the image can't be decoded"),
    ],
)
def test_no_answer_has_a_sentence_of_tensorflow(server: Server, file: bytes, reason: str) -> None:
    status, answer = server.predict([file])
    assert status == 400
    assert answer["error"].startswith(f"instances[0]: {reason}")
    assert not any(sentence in json.dumps(answer) for sentence in SENTENCES)


def test_examples_with_other_formats_are_refused_by_name(server: Server, exported) -> None:
    def ask(example: bytes) -> tuple[int, Any]:
        body = {"signature_name": "predict_examples", "instances": [{"b64": encode(example)}]}
        return server.ask("POST", "/v1/models/fpn:predict", json.dumps(body))

    assert ask(example_of(exported.files[0]))[0] == 200
    for example, reason in (
        (example_of(FILES["gif"]), "GIF in a tf.Example; make PNG of it, or send the file itself"),
        (example_of(), "a tf.Example without an image"),
        (example_of(FILES["jpeg CMYK"]), "CMYK JPEG: the model reads PNG and JPEG; convert it to PNG"),
        (example_of(CUT), "damaged: the image can't be decoded"),
    ):
        status, answer = ask(example)
        assert (status, answer["error"][: 14 + len(reason)]) == (400, f"instances[0]: {reason}")


def test_a_label_that_the_served_model_does_not_know_is_told_with_those_that_it_knows(server: Server, exported) -> None:
    body = json.dumps({"instances": [{"image_bytes": {"b64": encode(exported.files[0])}, "label": "cow"}]})
    status, answer = server.ask("POST", "/v1/models/fpn:explain", body)
    assert (status, answer["error"]) == (400, "instances[0]: label 'cow': the model knows cat, dog, owl")
