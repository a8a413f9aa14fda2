"""Relevance mass: the fraction of a map's values inside each region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from neuroxai.core.errors import MethodError

Fractions = Mapping[str, float]
"""Mask name to a fraction between 0 and 1."""


@dataclass(frozen=True)
class RelevanceMass:
    """Fractions of a signed map inside each mask.

    Attributes
    ----------
    positive, negative, all
        Fraction of the positive, negative and absolute values; None if the map has none.
    volume
        Each mask's fraction of the grid, the expected value for an uninformative map.
    positive_fraction
        Sum of the positive values over the sum of absolute values; None for a map of zeros.
    """

    positive: Fractions | None
    negative: Fractions | None
    all: Fractions | None
    volume: Fractions
    positive_fraction: float | None

    def describe(self) -> dict[str, Any]:
        """Return the fractions, ready for JSON."""
        return asdict(self)


def relevance_mass(values: Tensor, masks: Mapping[str, Tensor]) -> RelevanceMass:
    r"""Fraction of a signed map inside each mask, for positive and negative values separately.

    .. math:: s_R = \sum_{v \in R} \max(m_v, 0) \Big/ \sum_v \max(m_v, 0)

    and likewise for ``max(−m, 0)`` and ``|m|``. Compare each fraction with the mask's fraction of
    the volume (``volume``), the expected value for an uninformative map.

    Parameters
    ----------
    values
        ``(*S)``, signed; or ``(C, *S)``, summed over channels for each sign separately.
    masks
        Name to ``(*S)`` bool; masks may overlap.

    Raises
    ------
    MethodError
        If a mask has another shape, or the map contains NaN or infinity.

    Examples
    --------
    >>> mass = relevance_mass(torch.tensor([3.0, 1.0, -2.0, 0.0]),
    ...                       {"left": torch.tensor([True, False, False, False])})
    >>> mass.positive, mass.negative, mass.volume
    ({'left': 0.75}, {'left': 0.0}, {'left': 0.25})
    """
    for name, mask in masks.items():
        if values.shape not in (mask.shape, (len(values), *mask.shape)):
            raise MethodError(
                f"mask {name} has shape {tuple(mask.shape)}, expected {tuple(values.shape)}, the "
                "shape of the map"
            )
    if not bool(torch.isfinite(values).all()):
        raise MethodError("the map contains NaN or infinity, expected finite values")
    has_channels = any(values.dim() > mask.dim() for mask in masks.values())
    positive, negative = _Mass(masks), _Mass(masks)
    for channel in values if has_channels else [values]:
        positive.add(channel.clamp(min=0))
        negative.add((-channel).clamp(min=0))
    total = positive.total + negative.total
    return RelevanceMass(
        positive=positive.fractions(),
        negative=negative.fractions(),
        all=positive.merge(negative).fractions(),
        volume={name: int(mask.sum()) / mask.numel() for name, mask in masks.items()},
        positive_fraction=positive.total / total if total else None,
    )


class _Mass:
    """Sum of nonnegative values, in total and inside each mask."""

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        self._masks = masks
        self.total = 0.0
        self.inside = dict.fromkeys(masks, 0.0)

    def add(self, mass: Tensor) -> None:
        """Add one channel of nonnegative values ``(*S)``."""
        self.total += float(mass.sum(dtype=torch.float64))
        for name, mask in self._masks.items():
            self.inside[name] += float(mass[mask].sum(dtype=torch.float64))

    def merge(self, other: _Mass) -> _Mass:
        """Sum of both masses."""
        merged = _Mass(self._masks)
        merged.total = self.total + other.total
        merged.inside = {name: mass + other.inside[name] for name, mass in self.inside.items()}
        return merged

    def fractions(self) -> dict[str, float] | None:
        """Fraction of the total inside each mask; None if the total is 0."""
        if self.total == 0:
            return None
        return {name: mass / self.total for name, mass in self.inside.items()}
