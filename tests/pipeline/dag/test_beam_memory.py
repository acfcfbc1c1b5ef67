"""What Beam remembers is what it would find out anew."""

import inspect
from collections.abc import Iterator

import apache_beam as beam
import pytest
from apache_beam.coders import VarIntCoder
from apache_beam.options.pipeline_options import DebugOptions, PipelineOptions, StandardOptions, TypeOptions, WorkerOptions
from apache_beam.transforms import core
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, is_stateful_dofn

from pipeline.dag.beam_memory import remember

FLAGS = ["--runner=FnApiRunner", "--experiments=one", "--sdk_container_image=none"]


@pytest.fixture(autouse=True)
def remembered() -> Iterator[None]:
    found = core.get_function_args_defaults, PipelineOptions.view_as
    remember()
    yield
    core.get_function_args_defaults, PipelineOptions.view_as = found


class Stateless(beam.DoFn):
    def process(self, element: int, added: int = 1, window: object = beam.DoFn.WindowParam) -> list[int]:
        return [element + added]


class Stateful(Stateless):
    def process(
        self, element: int, state: object = beam.DoFn.StateParam(ReadModifyWriteStateSpec("s", VarIntCoder()))
    ) -> list[int]:
        return [element]


@pytest.mark.parametrize("kind", [Stateless, Stateful])
def test_parameters_of_methods_are_those_of_their_class(kind: type[beam.DoFn]) -> None:
    for _ in range(2):
        names, defaults = core.get_function_arguments(kind(), "process")
        expected = inspect.signature(kind().process).parameters.values()
        assert names == [item.name for item in expected]
        assert defaults == [item.default for item in expected if item.default is not item.empty]
        names.append("changed by who asked")
    assert is_stateful_dofn(kind()) == (kind is Stateful)


def test_functions_that_are_no_methods_keep_parameters_of_their_own() -> None:
    one, other = core.CallableWrapperDoFn(lambda a, b=1: [a]), core.CallableWrapperDoFn(lambda c, d=2, e=3: [c])
    assert core.get_function_arguments(one, "process") == (["a", "b"], [1])
    assert core.get_function_arguments(other, "process") == (["c", "d", "e"], [2, 3])


@pytest.mark.parametrize("kind", [StandardOptions, DebugOptions, TypeOptions, WorkerOptions])
def test_options_are_as_parsed(kind: type[PipelineOptions]) -> None:
    for _ in range(2):
        assert str(PipelineOptions(FLAGS).view_as(kind)) == str(kind(FLAGS))
    assert str(PipelineOptions(["--runner=Other"]).view_as(kind)) == str(kind(["--runner=Other"]))


def test_a_change_is_seen_in_all_views_of_the_same_options_and_in_no_others() -> None:
    options = PipelineOptions(FLAGS)
    options.view_as(DebugOptions).experiments.append("two")
    options.view_as(StandardOptions).runner = "DirectRunner"
    assert options.view_as(DebugOptions).experiments == ["one", "two"]
    assert options.view_as(StandardOptions).runner == "DirectRunner"
    assert PipelineOptions(FLAGS).view_as(DebugOptions).experiments == ["one"]
    assert PipelineOptions(FLAGS).view_as(StandardOptions).runner == "FnApiRunner"
    with pytest.raises(AttributeError):
        options.view_as(StandardOptions).experiments = []


def test_a_pipeline_gives_the_same() -> None:
    from apache_beam.testing.util import assert_that, equal_to

    with beam.Pipeline(argv=FLAGS[:1]) as pipeline:
        found = pipeline | beam.Create([1, 2]) | beam.ParDo(Stateless(), 10) | beam.Map(lambda number, by=2: number * by)
        assert_that(found, equal_to([22, 24]))
