"""The REST protocol of TensorFlow Serving: turns requests into columns of bytes, and columns of answers into JSON."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from pipeline.serving.refusal import Refusal

DEFAULT_SIGNATURE: Final = "serving_default"
_EXAMPLE: Final = '{"instances": [{"b64": "..."}]}'
_STEP: Final = 2**20  # characters that are read at once; a multiple of 4, for base64


@dataclass(frozen=True)
class Query:
    """A request.

    Attributes:
      signature: the SavedModel's signature to call.
      columns: a list of N values for each input.
      in_rows: whether the request has rows (`instances`), so that the answer has rows (`predictions`); otherwise both have
        columns.
    """

    signature: str
    columns: dict[str, list[bytes]]
    in_rows: bool

    @property
    def rows(self) -> int:
        return len(next(iter(self.columns.values())))


def read_query(
    body: bytes,
    signatures: Mapping[str, Sequence[str]],
    max_instances: int,
    signature: str = DEFAULT_SIGNATURE,
    defaults: Mapping[str, bytes] | None = None,
) -> Query:
    """Reads the body of a request.

    Args:
      body: {"instances": [...]} or {"inputs": ...}, and perhaps "signature_name".
      signatures: names of the inputs of each signature; all of them take strings, [N].
      max_instances: greatest N.
      signature: the signature to call if the body names none.
      defaults: values of inputs that a row may leave out.

    Raises:
      Refusal: 400, the body is not a valid request.
    """
    content = read_object(body, max_instances, _EXAMPLE)
    if unknown := content.keys() - {"instances", "inputs", "signature_name"}:
        raise Refusal(400, f"unknown key {min(unknown)[:50]!r}; send {_EXAMPLE}")
    if ("instances" in content) == ("inputs" in content):
        raise Refusal(400, f"give either instances or inputs, as in {_EXAMPLE}")
    name = content.get("signature_name", signature)
    if not isinstance(name, str) or name not in signatures:
        raise Refusal(400, f"signature_name: the model has {', '.join(sorted(signatures))}")
    in_rows = "instances" in content
    columns = (
        _from_rows(content["instances"], signatures[name], defaults or {})
        if in_rows
        else _from_columns(content["inputs"], signatures[name])
    )
    sizes = {len(values) for values in columns.values()}
    if len(sizes) > 1:
        raise Refusal(400, "inputs: all must have as many values")
    if sizes == {0}:
        raise Refusal(400, f"no instances; send {_EXAMPLE}")
    if max(sizes) > max_instances:
        raise Refusal(400, f"more than {max_instances} instances; send them in several requests")
    return Query(name, columns, in_rows)


def read_object(body: bytes, max_instances: int, example: str) -> dict[str, Any]:
    """Reads a JSON object that has at most `max_instances` instances.

    Raises:
      Refusal: 400, with the example in its text: the body is not a JSON object, or has too many instances.
    """
    # Values are strings or objects with one string: a body with many more brackets would only cost memory.
    left = 8 * max_instances + 64
    for start in range(0, len(body), _STEP):  # in steps, between which other threads may run
        left -= sum(body.count(sign, start, start + _STEP) for sign in (b"{", b"[", b","))
        if left < 0:
            raise Refusal(400, f"more than {max_instances} instances; send them in several requests")
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, f"JSON Parse error: {error}; send {example}") from error
    if not isinstance(content, dict):
        raise Refusal(400, f"the body must be a JSON object such as {example}")
    return content


def decode_base64(text: str, where: str) -> bytes:
    """Reads base64.

    Raises:
      Refusal: 400, with the place `where` in its text: the text is not base64.
    """
    try:
        if len(text) <= _STEP:
            return binascii.a2b_base64(text, strict_mode=True)
        if text.find("=", 0, -2) >= 0:
            raise ValueError("Discontinuous padding not allowed")
        # In steps, between which other threads may run.
        steps = (text[start : start + _STEP] for start in range(0, len(text), _STEP))
        return b"".join([binascii.a2b_base64(step, strict_mode=True) for step in steps])
    except ValueError as error:
        raise Refusal(400, f"{where}: wrong base64: {error}") from error


def write_answer(query: Query, columns: Mapping[str, np.ndarray]) -> bytes:
    """Writes an answer in TensorFlow Serving's form.

    Args:
      query: the request to answer.
      columns: the outputs, [N, ...].

    Returns:
      {"predictions": [...]} or {"outputs": ...}; a signature's only output goes without its name.
    """
    if query.in_rows:
        return _dump({"predictions": _rows(columns)})
    encoded = {name: _encodable(name, values) for name, values in columns.items()}
    return _dump({"outputs": encoded if len(encoded) > 1 else next(iter(encoded.values()))})


def written_rows(columns: Mapping[str, np.ndarray]) -> list[Any]:
    """The rows of an answer as `write_answer` writes them, each ready for `orjson.dumps`; none if there are no outputs."""
    return [orjson.Fragment(_dump(row)) for row in _rows(columns)]


def _rows(columns: Mapping[str, np.ndarray]) -> list[Any]:
    encoded = {name: _encodable(name, values) for name, values in columns.items()}
    if len(encoded) == 1:
        return list(next(iter(encoded.values())))
    return [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]


def _encodable(name: str, values: np.ndarray) -> Any:
    """The values in a form that orjson writes; strings as in TensorFlow Serving, in base64 if the name ends with _bytes."""
    if values.dtype != object:
        return np.ascontiguousarray(values)

    def encode(value: Any) -> Any:
        if isinstance(value, list):
            return [encode(each) for each in value]
        return {"b64": base64.b64encode(value).decode()} if name.endswith("_bytes") else value.decode(errors="replace")

    return encode(values.tolist())


def _dump(content: Any) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def _from_rows(instances: Any, inputs: Sequence[str], defaults: Mapping[str, bytes]) -> dict[str, list[bytes]]:
    if not isinstance(instances, list):
        raise Refusal(400, f"instances: must be a list, as in {_EXAMPLE}")
    columns: dict[str, list[bytes]] = {name: [] for name in inputs}
    required = columns.keys() - defaults.keys()
    for index, instance in enumerate(instances):
        where = f"instances[{index}]"
        if not isinstance(instance, dict) or "b64" in instance:
            instance = {inputs[0]: instance}
        if not required <= instance.keys() <= columns.keys():
            raise Refusal(400, f"{where}: the signature's inputs are {', '.join(inputs)}")
        for name, values in columns.items():
            values.append(_value(instance[name], f"{where}.{name}") if name in instance else defaults[name])
    return columns


def _from_columns(content: Any, inputs: Sequence[str]) -> dict[str, list[bytes]]:
    if not isinstance(content, dict):
        content = {inputs[0]: content}
    if content.keys() != set(inputs) or not all(isinstance(values, list) for values in content.values()):
        raise Refusal(400, f"inputs: must be lists of {', '.join(inputs)}")
    return {name: [_value(value, f"inputs.{name}[{index}]") for index, value in enumerate(content[name])] for name in inputs}


def _value(value: Any, where: str) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, dict) or value.keys() != {"b64"} or not isinstance(value["b64"], str):
        raise Refusal(400, f'{where}: must be {{"b64": "..."}} or a string')
    return decode_base64(value["b64"], where)
