"""Cleanup when a run is terminated."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TERMINATED = 128 + signal.SIGTERM
"""Exit code that a shell reports for a process ended by SIGTERM."""


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Context manager in which SIGTERM, as sent by a batch queue, raises ``SystemExit``.

    By default, SIGTERM ends a process without running its cleanup code, so partial results would
    remain on disk. Outside the main thread, where signals cannot be handled, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit(*_: object) -> None:
    # A second signal must not interrupt the cleanup.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(TERMINATED)
