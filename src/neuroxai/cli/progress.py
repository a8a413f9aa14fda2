"""Progress on the error stream, so that results can be piped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
def stages(*, quiet: bool = False) -> Iterator[Report]:
    """Context manager that yields a callback and shows one bar per reported stage.

    Without a terminal, one line is printed per stage; with ``quiet``, nothing.
    """
    if quiet or not plain(stderr=True).is_terminal:
        yield _ignore if quiet else _line_per_stage()
        return
    with bars() as shown:
        known: dict[str, TaskID] = {}

        def report(stage: str, done: float, total: float) -> None:
            if stage not in known:
                known[stage] = shown.add_task(stage, total=total)
            shown.update(known[stage], completed=done, total=total)

        yield report


@contextmanager
def one_bar(*, quiet: bool = False) -> Iterator[Report]:
    """Context manager that yields a callback and shows all reported stages on one bar.

    Without a terminal, one line is printed per stage; with ``quiet``, nothing.
    """
    if quiet or not plain(stderr=True).is_terminal:
        yield _ignore if quiet else _line_per_stage()
        return
    with bars() as shown:
        task = shown.add_task("Starting", total=None)

        def report(stage: str, done: float, total: float) -> None:
            shown.update(task, description=stage, completed=done, total=total)

        yield report


def _ignore(stage: str, done: float, total: float) -> None:
    """Show nothing."""


def _line_per_stage() -> Callable[[str, float, float], None]:
    """Return a callback that prints a line when a stage starts."""
    console = plain(stderr=True)
    known: set[str] = set()

    def report(stage: str, done: float, total: float) -> None:
        if stage and stage not in known:
            known.add(stage)
            console.print(f"{stage} ...", soft_wrap=True)

    return report
