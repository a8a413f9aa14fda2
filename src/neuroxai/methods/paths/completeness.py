"""Completeness of path methods: whether an attribution sums to the change of the score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

_VANISHING = 1e-9
"""Change relative to the scores that counts as none: rounding in double precision."""

LARGE_GAP = 0.1
"""Gap above which the map carries a note."""

VOID_GAP = 1.0
"""Gap from which a map is void: that of a map of zeros."""

LARGE_EXCESS = 10.0
"""Sum of the steps' absolute contributions, relative to the score's change, above which a map along
a straight or guided path is void: with errors of 10 % in a step, the error is as large as the
change."""


def completeness(values: Tensor, at_x: Tensor, at_baseline: Tensor) -> dict[str, Any]:
    r"""Return the change of the score and the completeness gap, per sample.

    .. math:: \frac{|\sum_i a_i - (S(x) - S(x'))|}{|S(x) - S(x')|}

    (Sundararajan et al. 2017, arXiv:1703.01365, Proposition 1). The gap is None if the score does
    not change between baseline and input. A small gap is necessary for a correct map, not
    sufficient: errors of opposite sign cancel in the sum.

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
    """Return notes on a large or undefined gap, none for a small one.

    A small gap is necessary, not sufficient, so no note recommends a map for its gap.

    Examples
    --------
    >>> gap_notes([0.02, 0.03])
    ()
    """
    notes = []
    if None in gaps:
        notes.append(
            "the target is the same at the baseline and at the image, so the completeness gap is "
            "undefined and the map explains no change: choose another baseline"
        )
    gap = worst(gaps)
    if LARGE_GAP < gap < VOID_GAP:
        notes.append(
            f"the completeness gap is {gap:.1%}, so the map does not sum to the target's change: "
            "neither its positions nor its magnitudes are reliable"
        )
    return tuple(notes)


def void_notes(gaps: list[float | None], excesses: list[float | None]) -> tuple[str, ...]:
    """Return why a map is void.

    A map of zeros has a gap of 100 %, so one with more is void; and so is one whose steps are far
    larger than the change they sum to.

    Parameters
    ----------
    gaps
        Completeness gap of each sample.
    excesses
        See :func:`path_excess`.

    Examples
    --------
    >>> void_notes([0.02, None], [1.2, None])
    ()
    """
    notes = []
    gap, excess = worst(gaps), worst(excesses)
    if gap >= VOID_GAP:
        notes.append(
            f"the map is void: the completeness gap is {gap:.1%}, and a map of zeros would have "
            "100 %: choose another baseline or method"
        )
    if excess > LARGE_EXCESS:
        notes.append(
            f"the map is void: the contributions of the path's steps sum to {excess:.3g} times the "
            "target's change in absolute value, so their sum is correct only by cancellation: "
            "choose another baseline or method"
        )
    return tuple(notes)


def path_excess(travelled: Sequence[float], found: dict[str, Any]) -> list[float | None]:
    """Return the sum of the absolute contributions of a path's steps over the score's change.

    It is 1 if every step changes the score in the same direction, and None if the score does not
    change.

    Parameters
    ----------
    travelled
        That sum for each sample.
    found
        See :func:`completeness`.
    """
    pairs = zip(travelled, found["completeness_gap"], found["score_change"], strict=True)
    return [None if gap is None else of / abs(change) for of, gap, change in pairs]
