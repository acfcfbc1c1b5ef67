"""Makes the graph of a SavedModel smaller: for a small network it would otherwise be half of all bytes."""

import os
from typing import Final

import tensorflow as tf
from tensorflow.core.framework import function_pb2, node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2

from models.files import replaced

_HINTS: Final = ("_output_shapes", "_class")  # results of shape inference; nodes that must be on one device


def compact(path: str) -> None:
    """Shortens a SavedModel in place; its results and all names that callers see stay the same.

    Inside functions, nodes get names such as "n2f", equal constants are merged, and hints about shapes and about variables of
    the Python code are removed. Names and signatures of functions, arguments of signatures and names of variables are kept.

    Args:
      path: folder of the SavedModel.
    """
    name = os.path.join(path, "saved_model.pb")
    saved_model = saved_model_pb2.SavedModel()
    with tf.io.gfile.GFile(name, "rb") as file:
        saved_model.ParseFromString(file.read())
    for meta_graph in saved_model.meta_graphs:
        for function in meta_graph.graph_def.library.function:
            _compact_function(function)
    with replaced(name) as unfinished, tf.io.gfile.GFile(unfinished, "wb") as file:
        file.write(saved_model.SerializeToString(deterministic=True))


def _compact_function(function: function_pb2.FunctionDef) -> None:
    for node in function.node_def:
        node.ClearField("experimental_debug_info")
        for attribute in _HINTS:
            if attribute in node.attr:
                del node.attr[attribute]
    _merge_constants(function)
    names = {argument.name: f"a{number:x}" for number, argument in enumerate(function.signature.input_arg)}
    names |= {node.name: f"n{number:x}" for number, node in enumerate(function.node_def)}

    for argument in function.signature.input_arg:
        argument.name = names[argument.name]
    for attributes in function.arg_attr.values():
        attributes.attr.pop("_user_specified_name", None)
    for node in function.node_def:
        node.name = names[node.name]
        node.input[:] = [_rename(item, names) for item in node.input]
    for output, item in list(function.ret.items()):
        function.ret[output] = _rename(item, names)
    for output, item in list(function.control_ret.items()):
        function.control_ret[output] = names[item]


def _merge_constants(function: function_pb2.FunctionDef) -> None:
    """Keeps the first of equal constants, but all constants with control dependencies: both ends of one are kept."""
    waited_for = {item[1:] for node in function.node_def for item in node.input if item.startswith("^")}
    waited_for |= set(function.control_ret.values())
    first: dict[bytes, str] = {}
    replaced: dict[str, str] = {}
    kept: list[node_def_pb2.NodeDef] = []
    for node in function.node_def:
        if node.op == "Const" and not node.input and node.name not in waited_for:
            content = node_def_pb2.NodeDef(device=node.device, attr=node.attr).SerializeToString(deterministic=True)
            if content in first:
                replaced[node.name] = first[content]
                continue
            first[content] = node.name
        kept.append(node)
    if not replaced:
        return
    copies = [node_def_pb2.NodeDef.FromString(node.SerializeToString()) for node in kept]
    del function.node_def[:]
    function.node_def.extend(copies)
    for node in function.node_def:
        node.input[:] = [_rename(item, replaced) for item in node.input]
    for output, item in list(function.ret.items()):
        function.ret[output] = _rename(item, replaced)


def _rename(item: str, names: dict[str, str]) -> str:
    """Renames a reference inside a function: "node:output:index", "argument" or "^node"."""
    mark = "^" if item.startswith("^") else ""
    name, separator, output = item.removeprefix("^").partition(":")
    return mark + names.get(name, name) + separator + output
