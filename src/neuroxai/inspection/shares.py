"""Where a map lies: how much of it falls into each region."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from neuroxai.core.errors import MethodError


def relevance_mass(values: Tensor, masks: Mapping[str, Tensor]) -> dict[str, Any]:
    r"""Return how much of a signed map lies in each mask, positive and negative evidence apart.

    .. math:: s_R = \sum_{v \in R} \max(m_v, 0) \Big/ \sum_v \max(m_v, 0)

    and the same for ``max(−m, 0)`` and ``|m|``. A share has a meaning only beside the mask's share
    of the volume, which a map that knows nothing of the mask would have: that is ``volume``.

    Parameters
    ----------
    values
        ``(*S)``, signed; or ``(C, *S)``, whose channels are added up, each sign by itself.
    masks
        Name to ``(*S)`` bool; masks may overlap.

    Returns
    -------
    dict
        ``positive``, ``negative`` and, of both, ``all``: mask to share, or None where the map has
        no such evidence; ``volume``: mask to its share of the grid; ``positive_fraction``: the
        share of positive evidence in all, None for a map of zeros.

    Raises
    ------
    MethodError
        If a mask has another shape, or the map holds values that are not finite.

    Examples
    --------
    >>> shares = relevance_mass(torch.tensor([3.0, 1.0, -2.0, 0.0]),
    ...                      {"left": torch.tensor([True, False, False, False])})
    >>> shares["positive"], shares["negative"], shares["volume"]
    ({'left': 0.75}, {'left': 0.0}, {'left': 0.25})
    """
    for name, mask in masks.items():
        if values.shape not in (mask.shape, (len(values), *mask.shape)):
            raise MethodError(
                f"mask {name} has shape {tuple(mask.shape)}, "
                f"expected the map's {tuple(values.shape)}"
            )
    if not bool(torch.isfinite(values).all()):
        raise MethodError("the map holds values that are not finite: its shares mean nothing")
    several = any(values.dim() > mask.dim() for mask in masks.values())
    positive, negative = _Mass(masks), _Mass(masks)
    for channel in values if several else [values]:
        positive.add(channel.clamp(min=0))
        negative.add((-channel).clamp(min=0))
    both = positive.total + negative.total
    return {
        "positive": positive.shares(),
        "negative": negative.shares(),
        "all": positive.together(negative).shares(),
        "volume": {name: int(mask.sum()) / mask.numel() for name, mask in masks.items()},
        "positive_fraction": positive.total / both if both else None,
    }


class _Mass:
    """What has been added up of one sign, in all and in each mask."""

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        self._masks = masks
        self.total = 0.0
        self.inside = dict.fromkeys(masks, 0.0)

    def add(self, mass: Tensor) -> None:
        """Add a channel, ``(*S)``, not below 0."""
        self.total += float(mass.sum(dtype=torch.float64))
        for name, mask in self._masks.items():
            self.inside[name] += float(mass[mask].sum(dtype=torch.float64))

    def together(self, other: _Mass) -> _Mass:
        """Return both together."""
        both = _Mass(self._masks)
        both.total = self.total + other.total
        both.inside = {name: mass + other.inside[name] for name, mass in self.inside.items()}
        return both

    def shares(self) -> dict[str, float] | None:
        """Return each mask's share; None where there is nothing to share."""
        if self.total == 0:
            return None
        return {name: mass / self.total for name, mass in self.inside.items()}
