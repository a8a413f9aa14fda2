"""Distribute jobs over worker processes, which end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

_POLL_INTERVAL_S = 1.0
"""How often a worker checks its parent: an orphan ends within a second, at no measurable cost."""


def in_workers(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[Result]:
    """Yield the results of ``work`` for all jobs, in the order in which they complete.

    With one worker, jobs run in this process. Otherwise each worker is a process with one torch
    thread, because the workers share the cores. Workers are spawned: a forked copy of a process
    with threads may deadlock. A worker whose parent was killed exits by itself.

    Raises
    ------
    concurrent.futures.process.BrokenProcessPool
        If a worker was killed, most likely because memory ran out.
    """
    if min(workers, len(jobs)) < 2:
        yield from map(work, jobs)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)), context, initializer=_initialize, initargs=(os.getpid(),)
    )
    # Only a few jobs are submitted ahead, so that an error or interrupt stops the rest soon.
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


def _initialize(parent: int) -> None:
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_INTERVAL_S)
    os._exit(1)
