"""Names of baselines, which are checked before torch is imported."""

from __future__ import annotations

from math import isfinite

from neuroxai.core.errors import MethodError, suggestion

AUTO = "auto"
"""See :func:`~neuroxai.methods.paths.path_start.path_start`."""

BASELINES = ("zero", "black", "blur", "mean", "brain", "healthy", "mirror", "noise")
"""See :func:`~neuroxai.methods.paths.baselines.baseline_image`."""

MIRROR = "mirror"


def check_name(method: str, baseline: str) -> None:
    """Raise if the name of a baseline is unknown.

    Raises
    ------
    MethodError
        With the known names.

    Examples
    --------
    >>> check_name("integrated_gradients", "mirror:0")
    >>> check_name("integrated_gradients", "blurr")
    Traceback (most recent call last):
    ...
    neuroxai.core.errors.MethodError: integrated_gradients: unknown baseline 'blurr': did you mean \
'blur'?
    """
    known = (AUTO, *BASELINES)
    if baseline not in known and named_axis(baseline) is None:
        raise MethodError(f"{method}: unknown baseline {baseline!r}: {suggestion(baseline, known)}")


def named_axis(baseline: str) -> int | None:
    """Return the spatial axis that ``mirror:N`` names; None for other names.

    Examples
    --------
    >>> named_axis("mirror:2"), named_axis("mirror")
    (2, None)
    """
    name, colon, axis = baseline.partition(":")
    return int(axis) if name == MIRROR and colon and axis in ("0", "1", "2") else None


def is_number(baseline: str) -> bool:
    """Return whether text is a finite number.

    Examples
    --------
    >>> is_number("-0.5"), is_number("blur"), is_number("nan")
    (True, False, False)
    """
    try:
        return isfinite(float(baseline))
    except ValueError:
        return False
