"""Early stopping of methods that sample, at a relative standard error."""

from __future__ import annotations

from neuroxai.methods.base import require


def check_tolerance(method: str, tolerance: float | None) -> None:
    """Raise if a tolerance is not above 0."""
    require(
        tolerance is None or tolerance > 0, method,
        f"tolerance is {tolerance}, expected a number above 0",
    )  # fmt: skip


def tolerance_note(tolerance: float | None, error: float, after: str) -> tuple[str, ...]:
    """Return a note if sampling ended above the tolerance.

    Examples
    --------
    >>> tolerance_note(0.1, 0.25, "64 masks")
    ('the relative standard error is 25.0% after 64 masks, above the tolerance of 10.0%',)
    """
    if tolerance is None or error <= tolerance:
        return ()
    return (
        f"the relative standard error is {error:.1%} after {after}, above the tolerance of "
        f"{tolerance:.1%}",
    )
