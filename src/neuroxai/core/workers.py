"""Work shared out among processes, which end when the one that started them does."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

_LOOK_EVERY_S = 1.0


def in_workers(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[Result]:
    """Yield what ``work`` makes of every job, as it is done.

    One worker works in this process, one job after the other. More are processes of their own,
    each with one thread, as they share the cores already; they are spawned, because a forked copy
    of a process that runs threads may hang. A worker that finds itself an orphan ends: what kills
    this process is not to leave others behind that go on for an hour.

    Raises
    ------
    concurrent.futures.process.BrokenProcessPool
        If a worker was killed, most likely for want of memory.
    """
    if min(workers, len(jobs)) < 2:
        yield from map(work, jobs)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)), context, initializer=_begin, initargs=(os.getpid(),)
    )
    # Few jobs are handed out at a time, so that a failure or an interruption ends the rest soon.
    running: set[Future[Result]] = set()
    try:
        for job in jobs:
            running.add(pool.submit(work, job))
            if len(running) <= workers:
                continue
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(parent: int) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # for torch, if the work imports it
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)
    os._exit(1)
