"""Settings of a pass through a network; free of torch, so that options are checked quickly."""

from __future__ import annotations

from neuroxai.core.errors import ModelError, suggestion

PRECISIONS = ("fp32", "tf32", "bf16")
"""Single precision, NVIDIA's TensorFloat-32, and bfloat16 by autocast."""


def check_precision_name(precision: str) -> None:
    """Raise if a precision is unknown.

    Raises
    ------
    ModelError
        If ``precision`` is not one of :data:`PRECISIONS`.

    Examples
    --------
    >>> check_precision_name("bf16")
    """
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise ModelError(
            f"unknown precision {precision!r}: {suggestion(precision, PRECISIONS)} "
            f"(supported: {known})"
        )
