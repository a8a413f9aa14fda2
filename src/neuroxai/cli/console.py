"""The one kind of console: what is printed stands there as it is, names in brackets included."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status


def plain(*, stderr: bool = False, highlight: bool = False) -> Console:
    """Return a console that takes no text for markup: a folder may be called ``out[old]``."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=highlight, markup=False, emoji=False)


def status(text: str) -> Status:
    """Return a line on the error stream that says what is being waited for."""
    from rich.text import Text

    return plain(stderr=True).status(Text(text))
