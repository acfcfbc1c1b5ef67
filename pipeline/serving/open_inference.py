"""The REST part of the Open Inference Protocol (V2), with the extension for tensors in binary.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md and
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_binary_data.html
"""

import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from pipeline.serving.protocol import decode_base64, read_object
from pipeline.serving.refusal import Refusal

JSON_SIZE: Final = "inference-header-content-length"  # header: number of JSON bytes before the binary tensors
EXTENSIONS: Final = ("binary_tensor_data",)
_EXAMPLE: Final = '{"inputs": [{"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": ["base64..."]}]}'


@dataclass(frozen=True)
class InferRequest:
    """A request.

    Attributes:
      identifier: id of the request, which its answer repeats; None if it has none.
      columns: a list of N values for each input.
      outputs: names of the outputs that the answer must have, each with whether it must be binary.
    """

    identifier: str | None
    columns: dict[str, list[bytes]]
    outputs: dict[str, bool]


def datatype(dtype: np.dtype) -> str:
    """The protocol's name of a type: BYTES for strings, otherwise a name such as FP32 or INT64."""
    return "BYTES" if dtype.kind == "O" else dtype.name.upper().replace("FLOAT", "FP")


def write_metadata(name: str, version: int, inputs: Sequence[str], outputs: Mapping[str, tuple[np.dtype, list[int]]]) -> bytes:
    """Writes the description of a model's inputs and outputs.

    Args:
      name: name of the model.
      version: the version that is served.
      inputs: names of the inputs; all of them take strings, [N].
      outputs: type and shape of each output, with -1 for a length that depends on the request.
    """
    metadata = {
        "name": name,
        "versions": [str(version)],
        "platform": "tensorflow_savedmodel",
        "inputs": [{"name": each, "datatype": "BYTES", "shape": [-1]} for each in inputs],
        "outputs": [{"name": each, "datatype": datatype(dtype), "shape": shape} for each, (dtype, shape) in outputs.items()],
    }
    return orjson.dumps(metadata)


def read_request(
    body: bytes, json_size: int | None, inputs: Sequence[str], outputs: Collection[str], max_instances: int
) -> InferRequest:
    """Reads the body of a request.

    A value in JSON is a base64 string, because JSON can't hold the bytes of an image file.

    Args:
      body: JSON, perhaps followed by binary tensors.
      json_size: number of bytes of the JSON; None if the whole body is JSON.
      inputs: names of the model's inputs; all of them take strings, [N].
      outputs: names of the model's outputs.
      max_instances: greatest N.

    Raises:
      Refusal: 400, the body is not a valid request.
    """
    if json_size is not None and json_size > len(body):
        raise Refusal(400, f"{JSON_SIZE}: more than the body has")
    content = read_object(body[:json_size], max_instances, _EXAMPLE)
    identifier = content.get("id")
    if not isinstance(identifier, str | None):
        raise Refusal(400, "id: must be a string")
    columns: dict[str, list[bytes]] = {}
    position = len(body) if json_size is None else json_size
    for tensor in _objects(content, "inputs"):
        name = tensor.get("name")
        if not isinstance(name, str) or name not in inputs or name in columns:
            raise Refusal(400, f"inputs: must be {', '.join(inputs)}, each once")
        if tensor.get("datatype") != "BYTES":
            raise Refusal(400, f"inputs.{name}: datatype must be BYTES")
        size = _parameters(tensor, f"inputs.{name}").get("binary_data_size")
        if size is None:
            columns[name] = _values_in_json(tensor.get("data"), name)
        elif type(size) is int and 0 <= size <= len(body) - position:
            columns[name] = _values_in_binary(body[position : position + size], name, max_instances)
            position += size
        else:
            raise Refusal(400, f"inputs.{name}: binary_data_size must be the number of bytes that follow the JSON")
        if tensor.get("shape") != [len(columns[name])]:
            raise Refusal(400, f"inputs.{name}: shape must be [{len(columns[name])}], as the tensor has so many values")
    sizes = {len(values) for values in columns.values()}
    if columns.keys() != set(inputs) or len(sizes) != 1 or sizes == {0}:
        raise Refusal(400, f"inputs: must be {', '.join(inputs)}, with as many values each; send {_EXAMPLE}")
    if max(sizes) > max_instances:
        raise Refusal(400, f"more than {max_instances} instances; send them in several requests")
    if position != len(body):
        raise Refusal(400, "the body goes on after the tensors")
    return InferRequest(identifier, columns, _read_outputs(content, outputs))


def write_response(
    request: InferRequest, name: str, version: int, columns: Mapping[str, np.ndarray]
) -> tuple[bytes, int | None]:
    """Writes an answer.

    Args:
      request: the request to answer.
      name: name of the model.
      version: the version that has answered.
      columns: the outputs, [N, ...].

    Returns:
      The body, and the size of the JSON at its beginning if binary tensors follow it.
    """
    tensors, parts = [], []
    for output, in_binary in request.outputs.items():
        values = columns[output]
        tensor: dict[str, Any] = {"name": output, "datatype": datatype(values.dtype), "shape": list(values.shape)}
        if in_binary:
            parts.append(_in_binary(values))
            tensor["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            tensor["data"] = _in_json(values)
        tensors.append(tensor)
    answer: dict[str, Any] = {"model_name": name, "model_version": str(version)}
    if request.identifier is not None:
        answer["id"] = request.identifier
    head = orjson.dumps(answer | {"outputs": tensors}, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([head, *parts]), len(head) if parts else None


def _objects(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = content.get(key)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise Refusal(400, f"{key}: must be a list of objects; send {_EXAMPLE}")
    return found


def _parameters(owner: dict[str, Any], where: str) -> dict[str, Any]:
    found = owner.get("parameters") or {}
    if not isinstance(found, dict):
        raise Refusal(400, f"{where}: parameters must be an object")
    return found


def _values_in_json(data: Any, name: str) -> list[bytes]:
    if not isinstance(data, list) or not all(isinstance(value, str) for value in data):
        raise Refusal(400, f"inputs.{name}: data must be a list of strings in base64")
    return [decode_base64(value, f"inputs.{name}[{index}]") for index, value in enumerate(data)]


def _values_in_binary(data: bytes, name: str, max_instances: int) -> list[bytes]:
    """Reads values that each have their size before them, as 4 bytes, lowest first."""
    values: list[bytes] = []
    position = 0
    while position < len(data) and len(values) <= max_instances:
        size = int.from_bytes(data[position : position + 4], "little")
        position += 4
        if position + size > len(data):
            raise Refusal(400, f"inputs.{name}[{len(values)}]: has fewer bytes than it says")
        values.append(data[position : position + size])
        position += size
    return values


def _read_outputs(content: dict[str, Any], outputs: Collection[str]) -> dict[str, bool]:
    """The outputs that a request asks for, each with whether it must be binary; all outputs if it names none."""
    in_binary = _parameters(content, "the request").get("binary_data_output") is True
    if not content.get("outputs"):
        return dict.fromkeys(outputs, in_binary)
    requested: dict[str, bool] = {}
    for each in _objects(content, "outputs"):
        name = each.get("name")
        if not isinstance(name, str) or name not in outputs:
            raise Refusal(400, f"outputs: the model has {', '.join(outputs)}")
        parameters = _parameters(each, f"outputs.{name}")
        if "classification" in parameters:
            raise Refusal(400, f"outputs.{name}: classification is not served; ask for label, probabilities and labels")
        requested[name] = parameters.get("binary_data", in_binary) is True
    return requested


def _in_json(values: np.ndarray) -> Any:
    """The values in a form that orjson writes as a flat list."""
    flat = np.ascontiguousarray(values).reshape(-1)
    return [value.decode(errors="replace") for value in flat.tolist()] if values.dtype == object else flat


def _in_binary(values: np.ndarray) -> bytes:
    if values.dtype != object:
        return values.tobytes()
    return b"".join(struct.pack("<I", len(value)) + value for value in values.reshape(-1).tolist())
