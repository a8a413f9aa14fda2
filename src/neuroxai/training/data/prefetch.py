"""The next batches made while the network is still busy with this one."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

from torch.utils.data import IterableDataset

_DEPTH = 2
_Item = tuple[Any, BaseException | None]


class Numbered(Protocol):
    """Batches of which each is a function of its number."""

    def batch(self, number: int) -> Any:
        """Return batch ``number``."""


class Prefetcher(IterableDataset[Any]):
    """Endless batches ``start, start + stride, …`` of ``source``, made by a thread of its own.

    Parameters
    ----------
    source
        Where batches come from.
    start, stride
        The first batch's number, and the distance to the next: of several processes that train
        together each takes its turn.

    Attributes
    ----------
    waited
        Seconds that were waited for batches so far.
    """

    def __init__(self, source: Numbered, *, start: int = 0, stride: int = 1) -> None:
        self._source = source
        self._start = start
        self._stride = stride
        self.waited = 0.0
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __iter__(self) -> Iterator[Any]:
        self.stop()
        made: queue.Queue[_Item] = queue.Queue(maxsize=_DEPTH)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._make, args=(made, self._done), daemon=True)
        self._thread.start()
        while True:
            began = time.monotonic()
            batch, fault = made.get()
            self.waited += time.monotonic() - began
            if fault is not None:
                raise fault
            yield batch

    def stop(self) -> None:
        """End the thread; the batch it is at is the last."""
        self._done.set()
        if self._thread is not None:
            self._thread.join()

    def _make(self, made: queue.Queue[_Item], done: threading.Event) -> None:
        number = self._start
        while not done.is_set():
            try:
                item: _Item = (self._source.batch(number), None)
            except BaseException as fault:  # handed to the thread that waits for the batch
                item = (None, fault)
            while not done.is_set():
                try:
                    made.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if item[1] is not None:
                return
            number += self._stride
