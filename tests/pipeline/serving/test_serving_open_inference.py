"""The Open Inference Protocol of `fpn serve`: requests as the clients of Triton (tritonclient) and KServe form them."""

import http.client
import json
import shutil
import struct
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from serving_process import Server, encode, serving

from pipeline.serving.open_inference import JSON_SIZE, InferRequest, read_request, write_response
from pipeline.serving.refusal import Refusal

INPUTS = ["image_bytes"]
OUTPUTS = ["label", "probabilities"]
COLUMNS = {"label": np.array([b"cat", b"d\xc3\xb6g"], object), "probabilities": np.float32([[0.25, 0.75], [1, 0]])}


@pytest.fixture(scope="module")
def server(exported, tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("pushed")
    shutil.copytree(exported.path, folder / "7")
    with serving(folder) as started:
        yield started


def in_binary(files: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(file)) + file for file in files)


def tensor(count: int, **more: Any) -> dict[str, Any]:
    return {"name": "image_bytes", "datatype": "BYTES", "shape": [count], **more}


def binary_request(files: list[bytes], **more: Any) -> tuple[bytes, int]:
    """A request with its tensor in binary: the body, and the size of the JSON at its beginning."""
    data = in_binary(files)
    head = json.dumps({"inputs": [tensor(len(files), parameters={"binary_data_size": len(data)})], **more}).encode()
    return head + data, len(head)


def ask(server: Server, body: bytes, json_size: int | None, path: str = "/v2/models/fpn/infer") -> tuple[dict, bytes]:
    """What the answer's JSON says, and what follows it."""
    headers = {} if json_size is None else {"Inference-Header-Content-Length": str(json_size)}
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        content = response.read()
    assert response.status == 200, content
    size = int(response.getheader("Inference-Header-Content-Length") or len(content))
    return json.loads(content[:size]), content[size:]


# --- the protocol


def test_values_are_base64_in_json_and_bytes_in_binary():
    in_json = json.dumps({"id": "a", "inputs": [tensor(2, data=["YWI=", "Yw=="])]}).encode()
    expected = InferRequest("a", {"image_bytes": [b"ab", b"c"]}, {"label": False, "probabilities": False})
    assert read_request(in_json, None, INPUTS, OUTPUTS, 10) == expected
    body, size = binary_request([b"ab", b"c"], id="a")
    assert read_request(body, size, INPUTS, OUTPUTS, 10) == expected


@pytest.mark.parametrize(
    ("asked", "outputs"),
    [
        ({}, {"label": False, "probabilities": False}),
        ({"parameters": {"binary_data_output": True, "priority": 1}}, {"label": True, "probabilities": True}),
        ({"outputs": [{"name": "label"}]}, {"label": False}),
        ({"outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]}, {"probabilities": True}),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "probabilities"}, {"name": "label", "parameters": {"binary_data": False}}],
            },
            {"probabilities": True, "label": False},
        ),
    ],
)
def test_a_request_chooses_outputs_and_whether_in_binary(asked, outputs):
    body = json.dumps({"inputs": [tensor(1, data=["YQ=="])], **asked}).encode()
    assert read_request(body, None, INPUTS, OUTPUTS, 10).outputs == outputs


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "inputs: must be a list of objects"),
        ({"inputs": [3]}, "inputs: must be a list of objects"),
        ({"inputs": []}, "inputs: must be image_bytes"),
        ({"inputs": [tensor(0, data=[])]}, "inputs: must be image_bytes"),
        ({"inputs": [tensor(1, data=["YQ=="], name="picture")]}, "inputs: must be image_bytes"),
        ({"inputs": [tensor(1, data=["YQ=="], name=["x"])]}, "inputs: must be image_bytes"),
        ({"inputs": [tensor(1, data=["YQ=="])] * 2}, "each once"),
        ({"inputs": [tensor(1, data=["YQ=="], datatype="UINT8")]}, "datatype must be BYTES"),
        ({"inputs": [tensor(2, data=["YQ=="])]}, r"shape must be \[1\]"),
        ({"inputs": [tensor(1, data=["YQ=="], shape=[1, 1])]}, r"shape must be \[1\]"),
        ({"inputs": [tensor(1, data="YQ==")]}, "must be a list of strings in base64"),
        ({"inputs": [tensor(1, data=[["YQ=="]])]}, "must be a list of strings in base64"),
        ({"inputs": [tensor(1, data=["\N{GREEK SMALL LETTER ALPHA}"])]}, r"inputs.image_bytes\[0\]: wrong base64"),
        ({"inputs": [tensor(11, data=["YQ=="] * 11)]}, "more than 10 instances"),
        ({"inputs": [tensor(1, data=["YQ=="], parameters=[1])]}, "parameters must be an object"),
        ({"inputs": [tensor(1, parameters={"binary_data_size": 5})]}, "must be the number of bytes that follow"),
        ({"inputs": [tensor(1, parameters={"binary_data_size": -1})]}, "must be the number of bytes that follow"),
        ({"inputs": [tensor(1, data=["YQ=="])], "outputs": [{"name": "x"}]}, "outputs: the model has label, probabilities"),
        ({"inputs": [tensor(1, data=["YQ=="])], "outputs": [{"name": ["label"]}]}, "outputs: the model has label"),
        (
            {"inputs": [tensor(1, data=["YQ=="])], "outputs": [{"name": "label", "parameters": {"classification": 2}}]},
            "classification is not served",
        ),
        ({"inputs": [tensor(1, data=["YQ=="])], "id": 3}, "id: must be a string"),
    ],
)
def test_another_request_is_refused_with_its_reason(content, reason):
    with pytest.raises(Refusal, match=reason) as refused:
        read_request(json.dumps(content).encode(), None, INPUTS, OUTPUTS, 10)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (struct.pack("<I", 9) + b"ab", "has fewer bytes than it says"),
        (b"\1\0", "has fewer bytes than it says"),
        (in_binary([b"a"] * 12), "more than 10 instances"),
        (in_binary([b"a", b"b"]), r"shape must be \[2\]"),
    ],
)
def test_tensors_that_are_not_what_they_say_are_refused(data, reason):
    count = 11 if "instances" in reason else 1
    head = json.dumps({"inputs": [tensor(count, parameters={"binary_data_size": len(data)})]}).encode()
    with pytest.raises(Refusal, match=reason):
        read_request(head + data, len(head), INPUTS, OUTPUTS, 10)


def test_the_size_of_the_json_must_be_right():
    body, size = binary_request([b"a"])
    with pytest.raises(Refusal, match="more than the body has"):
        read_request(body, len(body) + 1, INPUTS, OUTPUTS, 10)
    with pytest.raises(Refusal, match="goes on after the tensors"):
        read_request(body + b"x", size, INPUTS, OUTPUTS, 10)


def test_answers_have_the_outputs_that_were_asked_for():
    body, size = write_response(InferRequest("a", {}, {"label": False, "probabilities": False}), "fpn", 7, COLUMNS)
    assert size is None
    assert json.loads(body) == {
        "model_name": "fpn",
        "model_version": "7",
        "id": "a",
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["cat", "dög"]},
            {"name": "probabilities", "datatype": "FP32", "shape": [2, 2], "data": [0.25, 0.75, 1, 0]},
        ],
    }
    body, size = write_response(InferRequest(None, {}, {"probabilities": True, "label": True}), "fpn", 7, COLUMNS)
    probabilities, label = json.loads(body[:size])["outputs"]
    assert (probabilities["parameters"], label["parameters"]) == ({"binary_data_size": 16}, {"binary_data_size": 15})
    assert body[size:] == COLUMNS["probabilities"].tobytes() + in_binary([b"cat", b"d\xc3\xb6g"])


# --- the server


def test_health_and_metadata(server: Server):
    assert server.ask("GET", "/v2/health/live") == (200, {"live": True})
    assert server.ask("GET", "/v2/health/ready") == (200, {"ready": True})
    status, told = server.ask("GET", "/v2")
    assert (status, told["name"], told["extensions"]) == (200, "fpn", ["binary_tensor_data"])
    assert server.ask("GET", "/v1/models") == server.ask("GET", "/v2/models") == (200, {"models": ["fpn"]})
    status, told = server.ask("GET", "/v2/models/fpn")
    assert (status, told) == (
        200,
        {
            "name": "fpn",
            "versions": ["7"],
            "platform": "tensorflow_savedmodel",
            "inputs": [{"name": "image_bytes", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
                {"name": "labels", "datatype": "BYTES", "shape": [-1, 3]},
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
            ],
        },
    )
    assert server.ask("GET", "/v2/models/fpn/versions/7") == (200, told)
    for version in ("", "/versions/7"):
        assert server.ask("GET", f"/v2/models/fpn{version}/ready") == (200, {"name": "fpn", "ready": True})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/other/ready", 404),
        ("GET", "/v2/models/fpn/versions/6/ready", 404),
        ("POST", "/v2/models/fpn/versions/6/infer", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", "/v2/models/fpn/infer", 405),
        ("POST", "/v2/models/fpn", 405),
        ("POST", "/v2/health/live", 405),
        ("POST", "/v2/models/fpn/infer", 400),
        ("GET", "/v2/", 404),
    ],
)
def test_other_addresses_and_methods_are_refused(server: Server, method, path, status):
    found, content = server.ask(method, path, b"{}" if method == "POST" else None)
    assert (found, list(content)) == (status, ["error"])


def test_answers_in_json_are_those_of_the_model(server: Server, exported):
    body = json.dumps({"inputs": [tensor(7, data=[encode(file) for file in exported.files])]}).encode()
    for path in ("/v2/models/fpn/infer", "/v2/models/fpn/versions/7/infer"):
        answer, rest = ask(server, body, None, path)
        assert (answer["model_name"], answer["model_version"], rest) == ("fpn", "7", b"")
        outputs = {output["name"]: output for output in answer["outputs"]}
        assert outputs["probabilities"]["shape"] == [7, 3]
        np.testing.assert_allclose(outputs["probabilities"]["data"], exported.probabilities.reshape(-1), atol=1e-5)
        best = exported.probabilities.argmax(axis=1)
        assert outputs["label"]["data"] == [exported.names[index].decode() for index in best]
        assert outputs["labels"]["data"] == ["cat", "dog", "owl"] * 7


def test_answers_in_binary_are_those_of_the_model(server: Server, exported):
    body, size = binary_request(
        exported.files, id="a1", outputs=[{"name": "probabilities", "parameters": {"binary_data": True}}]
    )
    answer, rest = ask(server, body, size)
    assert (answer["id"], len(answer["outputs"])) == ("a1", 1)
    assert answer["outputs"][0]["parameters"] == {"binary_data_size": len(rest)}
    np.testing.assert_allclose(np.frombuffer(rest, np.float32).reshape(7, 3), exported.probabilities, atol=1e-5)
    body, size = binary_request(exported.files, parameters={"binary_data_output": True})
    answer, rest = ask(server, body, size)
    assert [output["name"] for output in answer["outputs"]] == ["label", "labels", "probabilities"]
    assert sum(output["parameters"]["binary_data_size"] for output in answer["outputs"]) == len(rest)
    assert rest.startswith(b"\3\0\0\0")


def test_an_image_that_can_not_be_read_is_named(server: Server, exported):
    body, size = binary_request([exported.files[0], b"nothing"])
    status, answer = server.ask("POST", "/v2/models/fpn/infer", body, **{JSON_SIZE: str(size)})
    assert (status, answer["error"][:12]) == (400, "instances[1]")
    for wrong in ("x", "-1", "9" * 30):
        status, answer = server.ask("POST", "/v2/models/fpn/infer", body, **{JSON_SIZE: wrong})
        assert status == 400
