"""Progress and cancellation of long work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from neuroxai.core.errors import CancelledError
from neuroxai.core.progress import Report


class Event(Protocol):
    """An event such as ``threading.Event``, set to cancel."""

    def is_set(self) -> bool:
        """Whether the work is to be cancelled."""
        ...


Cancel = Callable[[], bool] | Event
"""Returns whether to cancel; or an event that is set to cancel."""


class Control:
    """Reports the progress of a session's work, and stops it on request.

    Parameters
    ----------
    progress
        Called with the current stage, the steps done, and all steps. A step is one gradient.
    cancel
        Checked before each pass through the network and before each method.
    """

    def __init__(self, progress: Report | None = None, cancel: Cancel | None = None) -> None:
        self._progress = progress
        check: Any = cancel
        self._cancelled: Callable[[], bool] | None = getattr(check, "is_set", check)
        self._stage, self._done, self._total = "", 0.0, 0.0

    def check(self) -> None:
        """Stop if the work was cancelled.

        Raises
        ------
        CancelledError
            If it was.
        """
        if self._cancelled is not None and self._cancelled():
            raise CancelledError(f"cancelled{f' during {self._stage}' if self._stage else ''}")

    def start(self, total: float) -> None:
        """Start to count the steps of one task."""
        self._stage, self._done, self._total = "", 0.0, total

    def enter(self, stage: str) -> None:
        """Report the next stage."""
        self._stage = stage
        self.check()
        self._report()

    def advance(self, steps: float) -> None:
        """Report finished steps."""
        self.reach(self._done + steps)
        self.check()

    def reach(self, done: float) -> None:
        """Report that at least ``done`` steps are finished."""
        self._done = min(max(self._done, done), self._total)
        self._report()

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self._stage, self._done, self._total)
