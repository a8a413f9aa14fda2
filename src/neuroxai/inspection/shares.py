"""Where a map lies: how much of it falls into each region."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from neuroxai.core.errors import MethodError


def mass_shares(values: Tensor, masks: Mapping[str, Tensor]) -> dict[str, Any]:
    r"""Return how much of a signed map lies in each mask, positive and negative evidence apart.

    .. math:: s_R = \sum_{v \in R} \max(m_v, 0) \Big/ \sum_v \max(m_v, 0)

    and the same for ``max(−m, 0)``. A share has a meaning only beside the mask's share of the
    volume, which a map that knows nothing of the mask would have: that is ``volume``.

    Parameters
    ----------
    values
        ``(*S)``, signed.
    masks
        Name to ``(*S)`` bool; masks may overlap.

    Returns
    -------
    dict
        ``positive`` and ``negative``: mask to share, or None where the map has no such evidence;
        ``volume``: mask to its share of the grid; ``positive_fraction``: the share of positive
        evidence in all, None for a map of zeros.

    Raises
    ------
    MethodError
        If a mask has another shape, or the map holds values that are not finite.

    Examples
    --------
    >>> shares = mass_shares(torch.tensor([3.0, 1.0, -2.0, 0.0]),
    ...                      {"left": torch.tensor([True, False, False, False])})
    >>> shares["positive"], shares["negative"], shares["volume"]
    ({'left': 0.75}, {'left': 0.0}, {'left': 0.25})
    """
    for name, mask in masks.items():
        if mask.shape != values.shape:
            raise MethodError(
                f"mask {name} has shape {tuple(mask.shape)}, "
                f"expected the map's {tuple(values.shape)}"
            )
    if not bool(torch.isfinite(values).all()):
        raise MethodError("the map holds values that are not finite: its shares mean nothing")
    exact = values.double()
    positive, negative = exact.clamp(min=0), (-exact).clamp(min=0)
    total = float(exact.abs().sum())
    return {
        "positive": _shares(positive, masks),
        "negative": _shares(negative, masks),
        "volume": {name: int(mask.sum()) / mask.numel() for name, mask in masks.items()},
        "positive_fraction": float(positive.sum()) / total if total else None,
    }


def _shares(mass: Tensor, masks: Mapping[str, Tensor]) -> dict[str, float] | None:
    total = float(mass.sum())
    if total == 0:
        return None
    return {name: float(mass[mask].sum()) / total for name, mask in masks.items()}
