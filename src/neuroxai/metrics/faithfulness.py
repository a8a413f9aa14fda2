"""Metrics that remove drawn parts of the brain and compare the map with what the target does.

The brain is divided into boxes. A map's evidence in a box should tell how much the target changes
when the box is removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.metrics.agreement import pearson, spearman
from neuroxai.metrics.base import Measured, require
from neuroxai.metrics.boxes import box_slices, boxes
from neuroxai.metrics.judged import Judged
from neuroxai.metrics.removal import Removal, RemovalMetric

NAN = float("nan")


@dataclass(frozen=True)
class Infidelity(RemovalMetric):
    r"""Squared error of the map as a linear prediction of removals (arXiv:1901.09392).

    .. math:: \min_\beta \frac{\sum_I \big(\beta\, I \cdot a - \Delta_I\big)^2}{\sum_I \Delta_I^2},
              \qquad I = x - x_I, \quad \Delta_I = S(x) - S(x_I)

    over ``draws`` images :math:`x_I` from which drawn boxes are removed. β is the authors' optimal
    scale, and the division makes values of different targets comparable: 0 for a map that predicts
    every removal, 1 for one that predicts nothing. ``raw`` is the authors' mean square without
    either. The definition is for gradients, in target per unit of the input; a map of another unit
    is only compared up to its scale.

    Parameters
    ----------
    draws
        Images.
    size
        Edge of a box in voxels.
    fraction
        Fraction of the brain's boxes that each image loses.
    """

    name: ClassVar[str] = "infidelity"
    title: ClassVar[str] = "Infidelity"
    citation: ClassVar[str] = "arXiv:1901.09392"
    higher_is_better: ClassVar[bool | None] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    unit: ClassVar[str] = ""

    remover: str = "blur"
    draws: int = 30
    size: int = 8
    fraction: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.name, self.draws, self.size)
        require(0 < self.fraction < 1, self.name, f"fraction is {self.fraction}, expected 0 to 1")

    def measure(self, judged: Judged) -> Measured:
        """Remove drawn boxes, and predict the change from the map."""
        grid = _Boxes(judged, self.size)
        masks = grid.draws(self.draws, self.fraction)
        x, values = judged.x.double().cpu(), judged.values.double()
        predicted = []
        with Removal(judged, self.remover, self.value) as removal:
            for mask in masks:
                image = removal.image(mask).double().cpu()
                predicted.append(((x - image) * values).flatten(1).sum(dim=1))
            falls = removal.full - removal.values(masks)
        return _infidelity(torch.stack(predicted), falls, removal.forwards)


@dataclass(frozen=True)
class FaithfulnessCorrelation(RemovalMetric):
    r"""Correlation of the evidence in drawn parts with the fall of the target (arXiv:2005.00631).

    .. math:: \rho_I\Big(\sum_{i \in I} a_i,\; S(x) - S(x_{\bar I})\Big)

    over ``draws`` sets I of boxes, each a ``fraction`` of the brain. Signed values are summed.

    Parameters
    ----------
    draws, size, fraction
        See :class:`Infidelity`.
    """

    name: ClassVar[str] = "faithfulness_correlation"
    title: ClassVar[str] = "Faithfulness correlation"
    citation: ClassVar[str] = "arXiv:2005.00631"
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    unit: ClassVar[str] = ""

    remover: str = "blur"
    draws: int = 50
    size: int = 8
    fraction: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.name, self.draws, self.size)
        require(0 < self.fraction < 1, self.name, f"fraction is {self.fraction}, expected 0 to 1")

    def measure(self, judged: Judged) -> Measured:
        """Remove drawn sets of boxes, and correlate."""
        masks = _Boxes(judged, self.size).draws(self.draws, self.fraction)
        with Removal(judged, self.remover, self.value) as removal:
            falls = removal.full - removal.values(masks)
        return _correlated(judged, masks, falls, removal.forwards)


@dataclass(frozen=True)
class SensitivityN(RemovalMetric):
    r"""Faithfulness correlation, averaged over the size of the removed part (arXiv:1711.06104).

    .. math:: \frac{1}{N} \sum_n \rho_{|I| = n}\Big(\sum_{i \in I} a_i,\; S(x) - S(x_{\bar I})\Big)

    Parameters
    ----------
    sizes
        How many sizes n, evenly spaced on a logarithmic scale from one box to 80 % of the brain.
    draws
        Sets per size.
    size
        Edge of a box in voxels.
    """

    name: ClassVar[str] = "sensitivity_n"
    title: ClassVar[str] = "Sensitivity-n"
    citation: ClassVar[str] = "arXiv:1711.06104"
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    unit: ClassVar[str] = ""

    remover: str = "blur"
    sizes: int = 5
    draws: int = 15
    size: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.name, self.draws, self.size)
        require(self.sizes >= 1, self.name, f"sizes is {self.sizes}, expected at least 1")

    def measure(self, judged: Judged) -> Measured:
        """Remove drawn sets of each size, and correlate within a size."""
        grid = _Boxes(judged, self.size)
        fractions = torch.logspace(-2, torch.tensor(_MOST).log10(), self.sizes).tolist()
        curve: dict[float, tuple[float | None, ...]] = {}
        rows = []
        with Removal(judged, self.remover, self.value) as removal:
            for fraction in fractions:
                masks = grid.draws(self.draws, fraction)
                found = _correlated(judged, masks, removal.full - removal.values(masks), 0)
                rows.append(torch.as_tensor(found.values, dtype=torch.float64))
                curve[round(fraction, 4)] = tuple(rows[-1].tolist())
        return Measured(
            torch.stack(rows).nanmean(dim=0), torch.zeros(len(judged.x)), {"curve": curve},
            forwards=removal.forwards,
        )  # fmt: skip


@dataclass(frozen=True)
class Monotonicity(RemovalMetric):
    r"""Rank correlation of a box's evidence with the change when it alone is removed (arXiv:2007.07584).

    .. math:: \rho_b\Big(\sum_{i \in b} |a_i|,\; |S(x) - S(x_{\bar b})|\Big)

    with Spearman's ρ over at most ``most`` boxes of the brain, drawn.

    Parameters
    ----------
    size
        Edge of a box in voxels.
    most
        Boxes.
    """  # noqa: E501

    name: ClassVar[str] = "monotonicity"
    title: ClassVar[str] = "Monotonicity"
    citation: ClassVar[str] = "arXiv:2007.07584"
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    unit: ClassVar[str] = ""

    remover: str = "blur"
    size: int = 8
    most: int = 60

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.name, self.most, self.size)

    def measure(self, judged: Judged) -> Measured:
        """Remove one box after the other, and correlate."""
        masks = _Boxes(judged, self.size).singles(self.most)
        with Removal(judged, self.remover, self.value) as removal:
            change = (removal.full - removal.values(masks)).abs()
        sizes = _sums(judged.values.double().abs(), masks)
        found = [spearman(a, d) for a, d in zip(sizes.T, change.T, strict=True)]
        return Measured(
            found, torch.zeros(len(found)), {"boxes": len(masks)}, forwards=removal.forwards
        )


_MOST = 0.8
"""Largest part of the brain that sensitivity-n removes, as in its paper."""


class _Boxes:
    """The boxes of each sample's brain."""

    def __init__(self, judged: Judged, size: int) -> None:
        self._shape = tuple(judged.domain.shape)
        # Each sample draws from its own, so that its value does not depend on the batch.
        self._drawing = [torch.Generator().manual_seed(judged.seed) for _ in judged.domain]
        places = boxes(self._shape[1:], size)
        self._domain = judged.domain
        number = torch.empty(self._shape[1:], dtype=torch.long)
        for index, place in enumerate(places):
            number[box_slices(place)] = index
        self._number = number
        self._inside = [number[inside].unique() for inside in judged.domain]

    def draws(self, count: int, fraction: float) -> list[Tensor]:
        """Return masks ``(B, *S)``, each of a drawn fraction of the brain's boxes."""
        found = []
        for _ in range(count):
            pairs = zip(self._inside, self._drawing, strict=True)
            found.append(self._mask([_drawn(at, fraction, generator) for at, generator in pairs]))
        return found

    def singles(self, most: int) -> list[Tensor]:
        """Return masks of one box each, the samples' boxes in drawn order."""
        pairs = zip(self._inside, self._drawing, strict=True)
        orders = [at[torch.randperm(len(at), generator=generator)] for at, generator in pairs]
        count = min(most, *(len(order) for order in orders))
        return [self._mask([order[k : k + 1] for order in orders]) for k in range(count)]

    def _mask(self, chosen: Sequence[Tensor]) -> Tensor:
        rows = [torch.isin(self._number, boxes_) for boxes_ in chosen]
        return torch.stack(rows) & self._domain


def _drawn(at: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Return a drawn fraction of boxes ``(n,)``: at least one, and not all of several."""
    count = min(max(1, round(fraction * len(at))), max(1, len(at) - 1))
    return at[torch.randperm(len(at), generator=generator)[:count]]


def _sums(values: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """Return the sum of a map ``(B, C, *S)`` in each mask ``(B, *S)``: ``(n, B)``."""
    total = values.sum(dim=1)
    return torch.stack([(total * mask).flatten(1).sum(dim=1) for mask in masks])


def _correlated(judged: Judged, masks: Sequence[Tensor], falls: Tensor, forwards: int) -> Measured:
    """Return Pearson's correlation of sums and falls, both ``(n, B)``."""
    sums = _sums(judged.values.double(), masks)
    found = [pearson(a, d) for a, d in zip(sums.T, falls.T, strict=True)]
    return Measured(found, torch.zeros(len(found)), {"draws": len(masks)}, forwards=forwards)


def _infidelity(predicted: Tensor, falls: Tensor, forwards: int) -> Measured:
    """Return the error of the best scale, relative to no prediction; both are ``(n, B)``."""
    square = falls.square().sum(dim=0)
    beta = (predicted * falls).sum(dim=0) / predicted.square().sum(dim=0).clamp(min=1e-300)
    error = (beta * predicted - falls).square().sum(dim=0)
    values = torch.where(square > 0, error / square.clamp(min=1e-300), NAN)
    raw = (predicted - falls).square().mean(dim=0)
    details = {"raw": raw.tolist(), "beta": beta.tolist()}
    return Measured(values, torch.ones(len(values)), details, forwards=forwards)


def _check(metric: str, draws: int, size: int) -> None:
    require(draws >= 3, metric, f"{draws} draws, expected at least 3")
    require(size >= 1, metric, f"size is {size}, expected at least 1")
