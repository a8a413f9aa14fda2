"""Consoles that print text verbatim."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status


def plain(*, stderr: bool = False, highlight: bool = False) -> Console:
    """Return a console without markup, because a folder may be named ``out[old]``."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=highlight, markup=False, emoji=False)


def status(text: str) -> Status:
    """Return a status line on the error stream, shown while a step runs."""
    from rich.text import Text

    return plain(stderr=True).status(Text(text))
