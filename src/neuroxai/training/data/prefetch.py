"""Prefetching of batches in a background thread."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

from torch.utils.data import IterableDataset

_DEPTH = 2
"""Length of the queue, with which trainings wait for data 1 % of the time (docs/benchmarks.md)."""
_Item = tuple[Any, BaseException | None]


class BatchSource(Protocol):
    """Batches as a function of their number."""

    def batch(self, number: int) -> Any:
        """Make batch ``number``."""


class Prefetcher(IterableDataset[Any]):
    """Endless batches ``start, start + stride, …`` of ``source``, made in a background thread.

    Parameters
    ----------
    source
        Source of the batches.
    start, stride
        Number of the first batch, and increment. In distributed training the stride is the number
        of processes.

    Attributes
    ----------
    waited
        Seconds spent waiting for batches.
    """

    def __init__(self, source: BatchSource, *, start: int = 0, stride: int = 1) -> None:
        self._source = source
        self._start = start
        self._stride = stride
        self.waited = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __iter__(self) -> Iterator[Any]:
        self.stop()
        batches: queue.Queue[_Item] = queue.Queue(maxsize=_DEPTH)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fill, args=(batches, self._stop), daemon=True)
        self._thread.start()
        while True:
            began = time.monotonic()
            batch, error = batches.get()
            self.waited += time.monotonic() - began
            if error is not None:
                raise error
            yield batch

    def stop(self) -> None:
        """Stop the thread after the batch in progress."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _fill(self, batches: queue.Queue[_Item], stop: threading.Event) -> None:
        number = self._start
        while not stop.is_set():
            try:
                item: _Item = (self._source.batch(number), None)
            except BaseException as error:  # raised again in the consuming thread
                item = (None, error)
            while not stop.is_set():
                try:
                    batches.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if item[1] is not None:
                return
            number += self._stride
