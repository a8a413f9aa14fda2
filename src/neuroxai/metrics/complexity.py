"""How concentrated a map is: Gini index, entropy, and the volume it effectively covers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.metrics.base import Measured, Metric
from neuroxai.metrics.judged import Judged


@dataclass(frozen=True)
class Sparseness(Metric):
    r"""Gini index of a map's evidence over the brain (arXiv:1810.06583).

    .. math:: G = \frac{\sum_{i=1}^{n} (2i - n - 1)\, a_{(i)}}{n \sum_i a_{(i)}}

    of the evidence ``a`` sorted upwards. 0 for an even map, near 1 for a single voxel. A sharp map
    is not a right one.

    Examples
    --------
    >>> even = torch.ones(1, 1, 2, 5)
    >>> Sparseness()(Judged(even, even)).values
    (0.0,)
    """

    name: ClassVar[str] = "sparseness"
    title: ClassVar[str] = "Sparseness (Gini)"
    family: ClassVar[str] = "complexity"
    citation: ClassVar[str] = "arXiv:1810.06583"
    higher_is_better: ClassVar[bool | None] = None

    def measure(self, judged: Judged) -> Measured:
        """Measure each sample over its brain."""
        return Measured([gini(values) for values in _in_brain(judged)])


@dataclass(frozen=True)
class Complexity(Metric):
    r"""Entropy of a map's evidence over the brain, in nats (arXiv:2005.00631).

    .. math:: H = -\sum_v p_v \ln p_v, \qquad p_v = a_v \Big/ \sum_u a_u

    Examples
    --------
    >>> even = torch.ones(1, 1, 2, 5)
    >>> round(Complexity()(Judged(even, even)).values[0], 4)  # ln 10
    2.3026
    """

    name: ClassVar[str] = "complexity"
    title: ClassVar[str] = "Complexity (entropy)"
    family: ClassVar[str] = "complexity"
    citation: ClassVar[str] = "arXiv:2005.00631"
    higher_is_better: ClassVar[bool | None] = None
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    unit: ClassVar[str] = "nats"

    def measure(self, judged: Judged) -> Measured:
        """Measure each sample over its brain."""
        return Measured([entropy(values) for values in _in_brain(judged)])


@dataclass(frozen=True)
class EffectiveVolume(Metric):
    r"""The volume that a map effectively covers: that of an even map of the same entropy, in ml.

    .. math:: V = e^{H} \, V_\mathrm{voxel}

    with the entropy ``H`` of :class:`Complexity` (the exponential of the entropy is the effective
    number of voxels, doi:10.2307/1934352). In 2D it is an area in cm².

    Examples
    --------
    >>> even = torch.ones(1, 1, 2, 5, 10)
    >>> round(EffectiveVolume()(Judged(even, even, spacing=(1.0, 1.0, 2.0))).values[0], 4)
    0.2
    """

    name: ClassVar[str] = "effective_volume"
    title: ClassVar[str] = "Effective volume"
    family: ClassVar[str] = "complexity"
    citation: ClassVar[str] = "doi:10.2307/1934352"
    higher_is_better: ClassVar[bool | None] = None
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    unit: ClassVar[str] = "ml"

    def measure(self, judged: Judged) -> Measured:
        """Measure each sample over its brain."""
        effective = torch.tensor([entropy(values) for values in _in_brain(judged)]).exp()
        return Measured(effective * judged.voxel_ml)


def _in_brain(judged: Judged) -> list[Tensor]:
    """Return the evidence in the brain of each sample, ``(n,)``."""
    return [a[inside] for a, inside in zip(judged.importance, judged.domain, strict=True)]


def gini(values: Tensor) -> float:
    """Return the Gini index of nonnegative values ``(n,)``; NaN if all are zero."""
    ordered, n = values.sort().values, len(values)
    total = float(ordered.sum())
    ranks = 2 * torch.arange(1, n + 1, dtype=torch.float64) - n - 1
    return float((ranks * ordered).sum()) / (n * total) if total > 0 else float("nan")


def entropy(values: Tensor) -> float:
    """Return the entropy of nonnegative values ``(n,)`` in nats; NaN if all are zero."""
    total = float(values.sum())
    if total <= 0:
        return float("nan")
    share = values / total
    return float(-torch.special.xlogy(share, share).sum())
