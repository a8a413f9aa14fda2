"""Batches made ahead: the same ones, in order, and nothing left running."""

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
def test_batches_come_in_order_from_where_it_starts(start: int, stride: int) -> None:
    ahead = Prefetcher(_Numbers(), start=start, stride=stride)
    got = list(itertools.islice(ahead, 5))
    ahead.stop()
    assert got == [start + stride * i for i in range(5)]


def test_no_more_than_a_few_are_made_ahead_and_stopping_ends_the_thread() -> None:
    numbers = _Numbers()
    ahead = Prefetcher(numbers)
    assert next(iter(ahead)) == 0
    time.sleep(0.3)
    assert len(numbers.made) <= 4
    before = threading.active_count()
    ahead.stop()
    assert threading.active_count() == before - 1


def test_a_fault_arrives_where_the_batch_would() -> None:
    batches = iter(Prefetcher(_Numbers(broken_at=2)))
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(OSError, match="gone"):
        next(batches)


def test_waiting_is_measured() -> None:
    ahead = Prefetcher(_Numbers(seconds=0.1))
    batches = iter(ahead)
    for _ in range(3):
        next(batches)
    assert 0.2 < ahead.waited < 2
    waited = ahead.waited
    time.sleep(0.5)
    next(batches)
    assert ahead.waited - waited < 0.09, "it was there already"
    ahead.stop()
