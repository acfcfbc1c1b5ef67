"""Work on several items at a time."""

import threading

import pytest

from base.threads import map_ahead


def test_results_come_in_the_order_of_the_items_though_the_first_ends_last():
    second_has_ended = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert second_has_ended.wait(10)
        second_has_ended.set()
        return -number

    assert list(map_ahead(work, range(5), 2)) == [0, -1, -2, -3, -4]


def test_items_are_taken_as_the_results_are():
    taken = []
    results = map_ahead(lambda number: number, (taken.append(number) or number for number in range(100)), 2)
    assert next(results) == 0
    assert len(taken) == 3  # two in work, and one that waits
    assert [next(results) for _ in range(10)] == list(range(1, 11))
    assert len(taken) == 13


def test_an_error_of_the_work_is_raised_in_its_place():
    def work(number: int) -> float:
        return 1 / (2 - number)

    results = map_ahead(work, range(5), 2)
    assert [next(results), next(results)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)
