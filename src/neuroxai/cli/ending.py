"""A run that is told to end cleans up behind itself first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TERMINATED = 128 + signal.SIGTERM
"""What a shell makes of a process that SIGTERM ended."""


@contextmanager
def tidy_ending() -> Iterator[None]:
    """Let SIGTERM, which a batch queue sends, end a run as an exception does, inside.

    Else it ends a process where it stands, and what was written so far stays behind.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(*_: object) -> None:
    # A second one must not break the cleaning up off.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(TERMINATED)
