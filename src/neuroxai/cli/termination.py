"""Cleanup and words when a run is terminated or interrupted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperGroup

TERMINATED = 128 + signal.SIGTERM
"""Exit code that a shell reports for a process ended by SIGTERM."""


INTERRUPTED = 128 + signal.SIGINT
"""Exit code that a shell reports for a process ended by Ctrl-C."""


class InterruptedRunError(Exception):
    """Ctrl-C, with what is kept in words."""


class InterruptibleGroup(TyperGroup):
    """Commands whose interrupts have words; typer alone ends without any."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command.

        Raises
        ------
        InterruptedRunError
            On Ctrl-C, with the notes that the command added to the exception.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            words = "; ".join(["interrupted", *getattr(stop, "__notes__", ())])
            raise InterruptedRunError(words) from stop


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
