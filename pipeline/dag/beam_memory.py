"""Lets Beam remember what it finds out anew for each step of a pipeline: the parameters of its methods, and its options.

On a handful of images a component of TFX spends a quarter of its time on these two. Call `remember` before a pipeline is built.
"""

import copy
import weakref
from argparse import Namespace
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms import core

_inspect, _view_as = core.get_function_args_defaults, PipelineOptions.view_as
_parameters: weakref.WeakKeyDictionary[FunctionType, tuple[list[str], list[Any]]] = weakref.WeakKeyDictionary()
_parsed: dict[tuple[type[PipelineOptions], tuple[str, ...]], Namespace] = {}


def remember() -> None:
    """Replaces two functions of Beam by these that give the same results."""
    core.get_function_args_defaults = _args_defaults
    PipelineOptions.view_as = _view


def _args_defaults(function: Callable[..., Any]) -> tuple[list[str], list[Any]]:
    """Names and defaults of parameters; those of a method are the same for all objects of its class."""
    method = function.__func__ if isinstance(function, MethodType) else None
    if not isinstance(method, FunctionType):
        return _inspect(function)
    if method not in _parameters:
        _parameters[method] = _inspect(function)
    names, defaults = _parameters[method]
    return [*names], [*defaults]


def _view(options: PipelineOptions, kind: type[PipelineOptions]) -> PipelineOptions:
    """The options as one of their kinds. Flags are parsed once for each kind; all views of an object share its values."""
    if options._flags is None:  # then those of the command line count
        return _view_as(options, kind)
    key = kind, tuple(options._flags)
    if key not in _parsed:
        _parsed[key] = kind(options._flags)._visible_options
    for name, value in vars(_parsed[key]).items():
        if name not in options._all_options:
            options._all_options[name] = copy.deepcopy(value)  # a list may be added to
    view: PipelineOptions = object.__new__(kind)
    view._flags, view._visible_options, view._all_options = options._flags, _parsed[key], options._all_options
    return view
