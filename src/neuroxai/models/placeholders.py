"""Placeholders of a card that its user still has to fill in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from neuroxai.core.errors import ModelError

FILL_IN = "FILL IN"
"""Every placeholder begins with these words, followed by what is expected."""


def placeholder(expected: str) -> str:
    """Return a placeholder for a value of a card.

    Examples
    --------
    >>> placeholder("name of the first input channel")
    'FILL IN: name of the first input channel'
    """
    return f"{FILL_IN}: {expected}"


def open_keys(table: object, prefix: str = "") -> tuple[str, ...]:
    """Return the dotted keys whose values are placeholders, lists once.

    Examples
    --------
    >>> open_keys({"task": "segmentation", "classes": ["FILL IN: a", "FILL IN: b"]})
    ('classes',)
    """
    return tuple(dict.fromkeys(_open_keys(table, prefix)))


def _open_keys(value: object, key: str) -> Iterator[str]:
    if isinstance(value, str) and value.startswith(FILL_IN):
        yield key
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _open_keys(each, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for each in value:
            yield from _open_keys(each, key)


def refuse_placeholders(table: object, source: str | Path) -> None:
    """Raise if a card still has placeholders.

    Raises
    ------
    ModelError
        Naming every key that has one.
    """
    keys = open_keys(table)
    if keys:
        *others, last = keys
        named = f"{', '.join(others)} and {last}" if others else last
        raise ModelError(
            f"{source}: fill in {named}; the values that begin with {FILL_IN!r} say what is "
            "expected"
        )
