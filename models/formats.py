"""The network of an exported model in other formats, for devices and servers without TensorFlow: LiteRT (TFLite) and ONNX.

They take what the network takes, uint8 pixels [N, height, width, channels], and give what the SavedModel's signature
`predict_images` gives: probabilities and, where the model has them, prediction sets and how unusual an image is. Image files
must be decoded and resized outside, exactly as the signature `decode` does it.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from models.choices import Format

FILES: Final[dict[Format, str]] = {
    "float16": "model_float16.tflite",
    "int8": "model_int8.tflite",
    "onnx": "model.onnx",
}
SIGNATURE: Final = "predict_images"
_OPSET: Final = 18  # of ONNX; ONNX Runtime 1.14 and later read it

_NOT_IN_8_BITS: Final = "unusual"  # a sum of many small squares, of which 8 bits leave nothing
Predict = Callable[[np.ndarray], dict[str, np.ndarray]]


def convert(path: str, kind: Format, representative: Iterable[np.ndarray] = ()) -> bytes:
    """Converts a SavedModel's network.

    * float16: LiteRT with weights of half precision; the device decides the precision of computations.
    * int8: LiteRT with weights and activations of 8 bits, whose ranges come from `representative`. Operations that have no such
      form are computed in float32; pixels and probabilities are as in the other formats. The output `unusual` is left out.
    * onnx: ONNX in full precision.

    Args:
      path: folder of the SavedModel, as `models.export` writes it.
      kind: the format.
      representative: for int8, some hundred images as the network sees them, uint8 [height, width, channels] each.

    Returns:
      The file's content.

    Raises:
      ImportError: the format is onnx, and its packages are not installed.
    """
    loaded = tf.saved_model.load(path)
    frozen = convert_variables_to_constants_v2(loaded.signatures[SIGNATURE])
    names = sorted(loaded.signatures[SIGNATURE].structured_outputs)  # the order of the outputs
    if kind == "onnx":
        return _to_onnx(frozen, names)

    specification = tf.TensorSpec(frozen.inputs[0].shape, tf.uint8, name="images")
    module = tf.Module()
    kept = [name for name in names if kind != "int8" or name != _NOT_IN_8_BITS]

    @tf.function(input_signature=[specification])
    def predict(images: tf.Tensor) -> dict[str, tf.Tensor]:
        found = dict(zip(names, frozen(images), strict=True))
        return {name: found[name] for name in kept}

    module.predict = predict
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={SIGNATURE: module.predict})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if kind == "float16":
            converter.target_spec.supported_types = [tf.float16]
        else:
            images = list(representative)
            converter.representative_dataset = lambda: ((SIGNATURE, {"images": image[np.newaxis]}) for image in images)
        return converter.convert()


def _to_onnx(frozen: Any, names: list[str]) -> bytes:
    import tf2onnx

    definition = frozen.graph.as_graph_def()
    for node in definition.node:  # the names that callers use
        if node.op == "Placeholder":
            source = node.name
    for name, tensor in zip(names, frozen.outputs, strict=True):
        definition.node.add(name=name, op="Identity", input=[tensor.op.name]).attr["T"].type = tensor.dtype.as_datatype_enum
    _replace_erfc(definition)
    logging.getLogger("tf2onnx").setLevel(logging.WARNING)
    model, _ = tf2onnx.convert.from_graph_def(
        definition, input_names=[f"{source}:0"], output_names=[f"{name}:0" for name in names], opset=_OPSET
    )
    _rename(model.graph, {f"{source}:0": "images", **{f"{name}:0": name for name in names}})
    return model.SerializeToString()


def _replace_erfc(definition: tf.compat.v1.GraphDef) -> None:
    """Puts 1 - Erf(x) for Erfc(x), which TensorFlow makes GELU of and ONNX has not."""
    for node in [node for node in definition.node if node.op == "Erfc"]:
        kind = node.attr["T"]
        one = tf.make_tensor_proto(1.0, kind.type, [])
        constant = definition.node.add(name=f"{node.name}_one", op="Const")
        constant.attr["dtype"].CopyFrom(kind)
        constant.attr["value"].tensor.CopyFrom(one)
        definition.node.add(name=f"{node.name}_erf", op="Erf", input=node.input).attr["T"].CopyFrom(kind)
        node.op = "Sub"
        node.input[:] = [constant.name, f"{node.name}_erf"]


def _rename(graph: Any, names: dict[str, str]) -> None:
    """Gives an ONNX graph's inputs and outputs other names."""
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def load(content: bytes, kind: Format, threads: int) -> Predict:
    """Loads a file that `convert` has made, as a function from uint8 [N, height, width, channels] to the outputs by name.

    Args:
      content: content of the file.
      kind: format of the file.
      threads: largest number of CPU threads.

    Raises:
      ImportError: the format is onnx, and ONNX Runtime is not installed.
    """
    if kind == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return lambda images: dict(zip(names, session.run(names, {"images": images}), strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LiteRT's interpreter is moving to another package; TensorFlow 2.21 still has it
        interpreter = tf.lite.Interpreter(model_content=content, num_threads=threads)
    predict = interpreter.get_signature_runner(SIGNATURE)
    return lambda images: predict(images=images)
