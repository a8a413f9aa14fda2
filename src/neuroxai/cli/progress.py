"""Progress bars, on the error stream so that results can be piped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from neuroxai.cli.console import plain

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from neuroxai.core.progress import Report


def bars() -> Progress:
    """Return a progress display with description, bar, percentage, elapsed and remaining time."""
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description:<44}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=plain(stderr=True),
    )


@contextmanager
def stages() -> Iterator[Report]:
    """Context manager that yields a callback and shows one bar per reported stage."""
    with bars() as shown:
        known: dict[str, TaskID] = {}

        def report(stage: str, done: float, total: float) -> None:
            if stage not in known:
                known[stage] = shown.add_task(stage, total=total)
            shown.update(known[stage], completed=done, total=total)

        yield report


@contextmanager
def one_bar() -> Iterator[Report]:
    """Context manager that yields a callback and shows all reported stages on one bar."""
    with bars() as shown:
        task = shown.add_task("Starting", total=None)

        def report(stage: str, done: float, total: float) -> None:
            shown.update(task, description=stage, completed=done, total=total)

        yield report
