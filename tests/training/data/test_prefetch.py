"""Prefetching: order, depth of the queue, errors, waiting time."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from neuroxai.training.data.prefetch import Prefetcher


class _Numbers:
    def __init__(self, seconds: float = 0.0, broken_at: int | None = None) -> None:
        self.made: list[int] = []
        self._seconds, self._broken_at = seconds, broken_at

    def batch(self, number: int) -> int:
        time.sleep(self._seconds)
        if number == self._broken_at:
            raise OSError("gone")
        self.made.append(number)
        return number


@pytest.mark.parametrize(("start", "stride"), [(0, 1), (5, 1), (6, 3)])
def test_batches_arrive_in_order(start: int, stride: int) -> None:
    prefetcher = Prefetcher(_Numbers(), start=start, stride=stride)
    got = list(itertools.islice(prefetcher, 5))
    prefetcher.stop()
    assert got == [start + stride * i for i in range(5)]


def test_few_batches_are_prefetched_and_stop_ends_the_thread() -> None:
    numbers = _Numbers()
    prefetcher = Prefetcher(numbers)
    assert next(iter(prefetcher)) == 0
    time.sleep(0.3)
    assert len(numbers.made) <= 4
    before = threading.active_count()
    prefetcher.stop()
    assert threading.active_count() == before - 1


def test_an_error_is_raised_in_place_of_its_batch() -> None:
    batches = iter(Prefetcher(_Numbers(broken_at=2)))
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(OSError, match="gone"):
        next(batches)


def test_waiting_time_is_measured() -> None:
    prefetcher = Prefetcher(_Numbers(seconds=0.1))
    batches = iter(prefetcher)
    for _ in range(3):
        next(batches)
    assert 0.2 < prefetcher.waited < 2
    waited = prefetcher.waited
    time.sleep(0.5)
    next(batches)
    assert prefetcher.waited - waited < 0.09, "the batch was in the queue"
    prefetcher.stop()
