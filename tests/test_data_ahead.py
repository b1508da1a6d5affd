"""Results come in the order of the items, only so many ahead of whoever takes them."""

import threading
import time
from collections.abc import Iterator

import pytest

from twostage.data.ahead import in_order


@pytest.mark.parametrize("threads", [1, 3, None])
def test_results_are_in_order_however_long_each_takes(threads: int | None) -> None:
    def slow_at_first(number: int) -> int:
        time.sleep(0.001 * (20 - number))
        return number**2

    assert list(in_order(range(20), slow_at_first, threads=threads)) == [number**2 for number in range(20)]
    assert list(in_order([], slow_at_first, threads=threads)) == []


def test_work_stays_a_little_ahead() -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            asked.append(number)
            yield number

    results = in_order(items(), lambda number: number, threads=2)
    for taken in range(10):
        assert next(results) == taken
        assert len(asked) == taken + 5
    results.close()  # type: ignore[attr-defined]


def test_several_threads_work_at_once() -> None:
    meeting = threading.Barrier(3, timeout=20)
    assert len(list(in_order(range(3), lambda _: meeting.wait(), threads=3))) == 3


def test_the_first_error_ends_it() -> None:
    done: list[int] = []

    def work(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        done.append(number)
        return number

    results = in_order(range(1000), work, threads=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert len(done) < 10
