"""Completeness of path methods: whether an attribution sums to the change of the score."""

from __future__ import annotations

from typing import Any

from torch import Tensor

_VANISHING = 1e-9
"""Change relative to the scores that counts as none: rounding in double precision."""

LARGE_GAP = 0.1
"""Gap above which the map carries a note."""


def completeness(values: Tensor, at_x: Tensor, at_baseline: Tensor) -> dict[str, Any]:
    r"""Return the change of the score and the completeness gap, per sample.

    .. math:: \frac{|\sum_i a_i - (S(x) - S(x'))|}{|S(x) - S(x')|}

    (Sundararajan et al. 2017, arXiv:1703.01365, Proposition 1). The gap is None if the score does
    not change between baseline and input.

    Parameters
    ----------
    values
        The attribution ``(B, C, *S)``.
    at_x, at_baseline
        The scores ``(B,)`` of the input and of the baseline.
    """
    at_x, at_baseline = at_x.double().cpu(), at_baseline.double().cpu()
    change = at_x - at_baseline
    total = values.double().flatten(1).sum(dim=1).cpu()
    floor = _VANISHING * (at_x.abs() + at_baseline.abs())
    gaps = [
        float(abs(t - c) / abs(c)) if abs(c) > f else None
        for t, c, f in zip(total, change, floor, strict=True)
    ]
    return {
        "score_at_baseline": at_baseline.tolist(),
        "score_change": change.tolist(),
        "attribution_sum": total.tolist(),
        "completeness_gap": gaps,
    }


def worst(gaps: list[float | None]) -> float:
    """Return the largest gap of a batch; 0 if no score changed."""
    return max((gap for gap in gaps if gap is not None), default=0.0)


def gap_notes(gaps: list[float | None]) -> tuple[str, ...]:
    """Return a note on a large gap, none for a small one.

    Examples
    --------
    >>> gap_notes([0.02, None])
    ()
    """
    gap = worst(gaps)
    if gap <= LARGE_GAP:
        return ()
    return (
        f"the completeness gap is {gap:.1%}, so the map does not sum to the target's change: "
        "its positions are more reliable than its magnitudes",
    )
