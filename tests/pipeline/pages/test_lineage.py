"""The drawing of a run's components and artifacts."""

import datetime
import itertools
import re
from xml.etree import ElementTree

import pytest
from metadata_records import Execution, Store

from base.errors import UserError
from pipeline.pages.lineage import describe, draw_lineage, lay_out
from pipeline.records.lineage import Lineage, Node, read_lineage

FIRST = datetime.datetime(2026, 3, 1, 12, 0, 9, 5)
SECOND = FIRST + datetime.timedelta(hours=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A run, and a second one with data from the cache, a baseline from the first, and a component that failed."""
    store = Store(tmp_path_factory.mktemp("store") / "metadata.sqlite")
    examples = store.run("ExampleGen", FIRST, outputs={"examples": "Examples"})
    first = store.run("Trainer", FIRST, outputs={"model": "Model"}, inputs=examples)
    store.run("ExampleGen", SECOND, Execution.CACHED, outputs=examples)
    second = store.run("Trainer", SECOND, outputs={"model": "Model"}, inputs=examples)
    store.run("Baseline", SECOND, internal={"candidate": second["model"], "model": first["model"]})
    store.run("Evaluator<&>", SECOND, Execution.FAILED, inputs={**examples, **second, "baseline_model": first["model"]})
    return store


def edges(lineage):
    names = [f"{node.name} {node.number}" for node in lineage.nodes]
    return {(names[start], names[end]) for start, end in lineage.edges}


def test_a_run_is_drawn_with_what_it_took_from_earlier_ones(store):
    lineage = read_lineage(store.store)  # the latest
    assert edges(lineage) == {
        ("ExampleGen 3", "examples 1"),
        ("examples 1", "Trainer 4"),
        ("Trainer 4", "model 3"),
        ("model 3", "Baseline 5"),  # as candidate
        ("Baseline 5", "model 2"),
        ("model 2", "Evaluator<&> 6"),
        ("model 3", "Evaluator<&> 6"),
        ("examples 1", "Evaluator<&> 6"),
    }
    states = {node.name: node.state for node in lineage.nodes if node.state}
    assert states == {"ExampleGen": "from the cache", "Trainer": "done", "Baseline": "done", "Evaluator<&>": "failed"}


def test_a_model_that_two_resolvers_find_is_drawn_below_the_first(tmp_path):
    store = Store(tmp_path / "metadata.sqlite")
    old = store.run("Trainer", FIRST, outputs={"model": "Model"})["model"]
    store.run("BaseModel", SECOND, internal={"model": old})
    new = store.run("Trainer", SECOND, outputs={"model": "Model"}, inputs={"base_model": old})["model"]
    store.run("Baseline", SECOND, internal={"candidate": new, "model": old})
    lineage = read_lineage(store.store)
    assert edges(lineage) == {
        ("BaseModel 2", "model 1"),
        ("model 1", "Trainer 3"),
        ("Trainer 3", "model 2"),
        ("model 2", "Baseline 4"),
        ("model 1", "Baseline 4"),
    }
    assert draw_lineage(lineage).startswith("<svg")


def test_another_run_is_found_by_its_name(store):
    expected = {("ExampleGen 1", "examples 1"), ("examples 1", "Trainer 2"), ("Trainer 2", "model 2")}
    assert edges(read_lineage(store.store, "2026-03-01T12-00-01")) == expected
    with pytest.raises(UserError, match="no run 2026-04-01T00-00-00 in the metadata store"):
        read_lineage(store.store, "2026-04-01T00-00-00")


def test_the_drawing_is_one_element_with_a_title_and_a_description(store):
    svg = draw_lineage(read_lineage(store.store))
    root = ElementTree.fromstring(svg)  # well-formed, whatever a component is called
    assert root.attrib["role"] == "img"
    texts = [element.text for element in root.iter("text")]
    assert {"Evaluator<&>", "failed #6", "ExampleGen", "from the cache #3", "Model #2"} <= set(texts)
    assert {element.attrib["id"] for element in root if "id" in element.attrib} == set(root.attrib["aria-labelledby"].split())
    assert root.find("desc").text == describe(read_lineage(store.store))
    assert "Trainer (done) read examples and gave model." in root.find("desc").text


def test_colours_are_the_pages(store):
    colours = re.findall(r'(?:fill|stroke)="([^"]*)"', draw_lineage(read_lineage(store.store)))
    assert {colour.split("(")[0] for colour in colours} == {"none", "currentColor", "var"}


def test_a_large_pipeline_is_laid_out_without_overlap():
    """Twelve components that each give up to three artifacts and read those of two before."""
    nodes = [Node(f"Component{number}", "Component", number, "done") for number in range(12)]
    edges = []
    for number in range(12):
        for output in range(1 + number % 3 + (number > 5)):
            edges.append((number, len(nodes)))
            edges += [(len(nodes), reader) for reader in (number + 1, number + 4) if reader < 12 and output < 2]
            nodes.append(Node(f"artifact{number}_{output}", "Artifact", len(nodes)))
    assert len(nodes) == 12 + 30
    places, routes = lay_out(Lineage(nodes, edges), width=160)
    boxes = [(round(x, 3), y) for x, y in places]
    for (x, y), (other_x, other_y) in itertools.combinations(boxes, 2):
        assert abs(x - other_x) >= 160 or abs(y - other_y) >= 42
    for (start, end), route in zip(edges, routes, strict=True):
        assert (route[0], route[-1]) == (places[start], places[end])
        assert all(below > above for (_, above), (_, below) in itertools.pairwise(route))
        for x, y in route[1:-1]:  # lines pass beside the boxes
            assert all(abs(x - box_x) >= 80 for box_x, box_y in boxes if box_y == y)


def test_what_is_read_late_stands_just_above_its_reader_and_lines_from_one_box_are_one():
    edges = [(0, 1), (1, 2), (2, 3), (4, 3), (0, 2), (0, 3)]
    nodes = [Node(name, "Kind", number) for number, name in enumerate(["first", "second", "third", "fourth", "earlier"])]
    places, routes = lay_out(Lineage(nodes, edges), width=100)
    rows = [y / 72 for _, y in places]
    assert rows == [0, 1, 2, 3, 2]
    assert routes[5][:2] == routes[4][:2]
    assert len({x for x, _ in routes[5][1:-1]}) == 1  # straight between its ends


def test_crossings_are_avoided_where_they_can_be():
    edges = [(0, 1), (0, 2), (0, 3), (1, 6), (2, 5), (3, 4), (4, 7), (5, 8), (6, 9)]
    places, _ = lay_out(Lineage([Node("name", "Kind", number) for number in range(10)], edges), width=100)
    for (one, two), (three, four) in itertools.combinations(edges, 2):
        if places[one][1] == places[three][1]:
            assert (places[one][0] - places[three][0]) * (places[two][0] - places[four][0]) >= 0
