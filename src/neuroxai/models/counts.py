"""Validation of integer arguments of networks."""

from __future__ import annotations

from collections.abc import Mapping

from neuroxai.core.errors import ModelError


def check_counts(network: str, counts: Mapping[str, object], least: int = 1) -> None:
    """Raise if an argument is not a whole number of at least ``least``.

    Raises
    ------
    ModelError
        Naming the network and the argument.

    Examples
    --------
    >>> check_counts("DeepSeg", {"filters": 8, "depth": 5})
    """
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            raise ModelError(
                f"{network}: {name} is {count!r}, expected a whole number from {least} up"
            )
