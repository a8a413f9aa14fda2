"""Scale of a target: logits or probabilities.

Free of torch, so that an option is checked quickly.
"""

from __future__ import annotations

from typing import Literal, get_args

from neuroxai.core.errors import TargetError, suggestion

OutputScale = Literal["logit", "probability"]


def check_scale(scale: str) -> OutputScale:
    """Return a scale, or raise if it is unknown.

    Raises
    ------
    TargetError
        If it is neither ``logit`` nor ``probability``.
    """
    known: tuple[OutputScale, ...] = get_args(OutputScale)
    for name in known:
        if scale == name:
            return name
    raise TargetError(f"unknown scale {scale!r}: {suggestion(scale, known)}")
