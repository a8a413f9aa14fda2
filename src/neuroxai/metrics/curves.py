"""Metrics that remove voxels in the order of a map: deletion, insertion, pixel flipping, ROAD."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.core.target.predicted_mask import predicted_mask
from neuroxai.core.vocabulary import CLASSES
from neuroxai.metrics.base import Measured, require
from neuroxai.metrics.judged import Judged
from neuroxai.metrics.removal import Removal, RemovalMetric, own_answer, region, soft_dice

Order = tuple[Tensor, ...]
"""Flat indices of the voxels of each sample's brain, the most important first."""


@dataclass(frozen=True)
class Deletion(RemovalMetric):
    r"""Mean fall of the target as the most important voxels are removed first (arXiv:1806.07421).

    .. math:: \frac{1}{K} \sum_{k=1}^{K} \big(S(x) - S(x_{f_k})\big)

    with the fraction :math:`f_k = k\,f_K/K` of the brain removed in all modalities. It is S(x)
    minus the area under the deletion curve, so higher is better. Voxels of equal importance are
    removed in drawn order. Compare it with ``chance``: the mean over ``copies`` of the same map,
    rolled by drawn offsets, which have its structure at other places.

    Parameters
    ----------
    steps
        Points K of the curve.
    most
        The fraction that is removed last; a tumor is a few percent of the brain.
    copies
        Rolled copies for the chance level; each takes ``steps`` passes. None by default.
    """

    name: ClassVar[str] = "deletion"
    title: ClassVar[str] = "Deletion"
    citation: ClassVar[str] = "arXiv:1806.07421"

    steps: int = 10
    most: float = 0.1
    copies: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.name, self.steps, self.most, self.copies)

    def measure(self, judged: Judged) -> Measured:
        """Remove from the top, for the map and its rolled copies."""
        with Removal(judged, self.remover, self.value) as removal:
            curve = _curve(removal, order_of(judged), self.fractions)
            rolled = [
                _curve(removal, order_of(judged, roll), self.fractions)
                for roll in range(1, self.copies + 1)
            ]
            full = removal.full
        return _measured(full, curve, rolled, self.fractions, removal.forwards, falls=True)

    @property
    def fractions(self) -> list[float]:
        """The fractions of the brain that are removed."""
        return [self.most * (step + 1) / self.steps for step in range(self.steps)]


@dataclass(frozen=True)
class Insertion(RemovalMetric):
    r"""Mean rise of the target as the most important voxels are put back first (arXiv:1806.07421).

    .. math:: \frac{1}{K} \sum_{k=1}^{K} \big(S(x^{f_k}) - S(x^0)\big)

    from an image whose whole brain was removed, :math:`x^0`; the fraction :math:`f_k = k\,f_K/K`
    of it is put back. Parameters are those of :class:`Deletion`. With ``neighbors`` there is
    nothing to impute from, so the default remover is ``blur``.
    """

    name: ClassVar[str] = "insertion"
    title: ClassVar[str] = "Insertion"
    citation: ClassVar[str] = "arXiv:1806.07421"

    remover: str = "blur"
    steps: int = 10
    most: float = 0.1
    copies: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.name, self.steps, self.most, self.copies)

    def measure(self, judged: Judged) -> Measured:
        """Put back from the top, for the map and its rolled copies."""
        fractions = [self.most * (step + 1) / self.steps for step in range(self.steps)]
        with Removal(judged, self.remover, self.value) as removal:
            (empty,) = removal.values([judged.domain])
            orders = [order_of(judged, roll) for roll in range(self.copies + 1)]
            curves = [_curve(removal, order, fractions, put_back=True) for order in orders]
        return _measured(empty, curves[0], curves[1:], fractions, removal.forwards, falls=False)


@dataclass(frozen=True)
class PixelFlipping(RemovalMetric):
    r"""Mean fall of the target as single values are replaced, most important first (doi:10.1371/journal.pone.0130140).

    As :class:`Deletion`, with the values of all modalities ranked one by one, so that a voxel may
    keep some modalities. A map that all modalities share removes them together.

    Parameters
    ----------
    steps, most
        See :class:`Deletion`.
    """  # noqa: E501

    name: ClassVar[str] = "pixel_flipping"
    title: ClassVar[str] = "Pixel flipping"
    citation: ClassVar[str] = "doi:10.1371/journal.pone.0130140"

    remover: str = "black"
    steps: int = 10
    most: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.name, self.steps, self.most, 0)

    def measure(self, judged: Judged) -> Measured:
        """Remove values from the top."""
        fractions = [self.most * (step + 1) / self.steps for step in range(self.steps)]
        parts = judged.parts.expand(judged.x.shape)
        inside = judged.domain.unsqueeze(1).expand(judged.x.shape)
        order = _ranked(parts, inside, judged.seed)
        with Removal(judged, self.remover, self.value) as removal:
            curve = _curve(removal, order, fractions, shape=judged.x.shape)
            full = removal.full
        return _measured(full, curve, [], fractions, removal.forwards, falls=True)


@dataclass(frozen=True)
class ROAD(RemovalMetric):
    r"""Remove and debias: least important minus most important first (arXiv:2202.00449).

    .. math:: \frac{1}{2K} \sum_{k=1}^{K} \big(S(x^{LeRF}_{f_k}) - S(x^{MoRF}_{f_k})\big)

    with voxels imputed from their neighbors, so that the shape of the hole does not tell the
    network what was there. The imputation is solved in 3D, with 26 neighbors.

    Parameters
    ----------
    steps, most
        See :class:`Deletion`.
    """

    name: ClassVar[str] = "road"
    title: ClassVar[str] = "ROAD"
    citation: ClassVar[str] = "arXiv:2202.00449"

    steps: int = 5
    most: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.name, self.steps, self.most, 0)

    def measure(self, judged: Judged) -> Measured:
        """Remove from the top, and from the bottom."""
        fractions = [self.most * (step + 1) / self.steps for step in range(self.steps)]
        order = order_of(judged)
        with Removal(judged, self.remover, self.value) as removal:
            most = _curve(removal, order, fractions)
            least = _curve(removal, tuple(o.flip(0) for o in order), fractions)
        details = {"fractions": fractions, "morf": most.T.tolist(), "lerf": least.T.tolist()}
        value = (least - most).mean(dim=0) / 2
        return Measured(value, torch.zeros_like(value), details, forwards=removal.forwards)


@dataclass(frozen=True)
class OffTargetLeakage(RemovalMetric):
    r"""How much of what a removal changes is not the target (after arXiv:2603.22624).

    .. math:: \frac{\overline{|\Delta D_o|}}{|\Delta D_t| + \overline{|\Delta D_o|}}

    with the change of the soft Dice D of the target's region t and of the other predicted classes
    o, against the network's own answer, when the most important ``fraction`` of the brain is
    removed. The background is not one of them: it takes over whatever the target loses.
    0 if the target alone changes, 0.5 if all change alike. Lower is better. Undefined where no
    other class is predicted or nothing changes.

    Parameters
    ----------
    fraction
        The fraction of the brain that is removed.
    """

    name: ClassVar[str] = "off_target_leakage"
    title: ClassVar[str] = "Off-target leakage"
    citation: ClassVar[str] = "arXiv:2603.22624"
    higher_is_better: ClassVar[bool | None] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    unit: ClassVar[str] = ""

    value: str = "soft_dice"
    fraction: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.fraction <= 1, self.name, f"fraction is {self.fraction}, expected 0 to 1")
        require(self.value == "soft_dice", self.name, "value is always soft_dice")

    def measure(self, judged: Judged) -> Measured:
        """Remove the top of the map once, and compare all predicted classes."""
        with Removal(judged, self.remover, self.value) as removal:
            bound, before = removal.probe.target, removal.probe.output()
            masks = list(_masks(order_of(judged), [self.fraction], tuple(judged.domain.shape)))
            (after,) = removal.outputs(masks)
            own = own_answer(bound, before)
            full, left = soft_dice(own, region(bound, before)), soft_dice(own, region(bound, after))
            target = (full - left).abs()
            p, q = bound.outputs.probabilities(before), bound.outputs.probabilities(after)
            rows = torch.arange(p.shape[1]).unsqueeze(1).unsqueeze(2).expand(-1, len(p), 1)
            predicted = [predicted_mask(bound.outputs, row, before) for row in rows]
        names = bound.outputs.names
        background = names.index(CLASSES[0]) if CLASSES[0] in names else None
        found, each = [], []
        for b in range(len(p)):
            taken = {int(c) for c in bound.channels[b]}
            others: dict[int, float] = {}
            for c in range(p.shape[1]):
                mask = predicted[c][b]
                if c in taken or c == background or not bool(mask.any()):
                    continue
                one, two = (soft_dice(mask[None], v[b, c][None].double()) for v in (p, q))
                others[c] = float((one - two).abs())
            mean = sum(others.values()) / len(others) if others else float("nan")
            total = float(target[b]) + mean
            found.append(mean / total if total > 0 else float("nan"))
            each.append(others)
        undefined = any(value != value for value in found)
        return Measured(
            found, details={"target": target.tolist(), "others": each},
            notes=("no other class is predicted, or nothing changes",) if undefined else (),
            forwards=removal.forwards,
        )  # fmt: skip


def order_of(judged: Judged, roll: int = 0) -> Order:
    """Return the brain's voxels of each sample, the most important first; ties in drawn order.

    Parameters
    ----------
    roll
        Number of the rolled copy whose order is returned; 0 for the map itself.
    """
    importance = judged.importance
    if roll:
        generator = torch.Generator().manual_seed(judged.seed * 1009 + roll)
        offsets = [int(torch.randint(1, max(n, 2), (), generator=generator))
                   for n in importance.shape[1:]]  # fmt: skip
        importance = importance.roll(offsets, tuple(range(1, importance.dim())))
    return _ranked(importance, judged.domain, judged.seed)


def _ranked(importance: Tensor, inside: Tensor, seed: int) -> Order:
    found = []
    for sample, counted in zip(importance, inside, strict=True):
        at = counted.flatten().nonzero().squeeze(1)
        generator = torch.Generator().manual_seed(seed)
        at = at[torch.randperm(len(at), generator=generator)]
        found.append(at[sample.flatten()[at].argsort(descending=True, stable=True)])
    return tuple(found)


def _masks(
    order: Order, fractions: Sequence[float], shape: tuple[int, ...], put_back: bool = False
) -> Iterator[Tensor]:
    """Yield the removed voxels at each fraction, ``(B, …)`` bool."""
    for fraction in fractions:
        mask = torch.zeros((shape[0], prod(shape[1:])), dtype=torch.bool)
        for row, at in zip(mask, order, strict=True):
            count = round(fraction * len(at))
            row[at[count:] if put_back else at[:count]] = True
        yield mask.reshape(shape)


def _curve(
    removal: Removal, order: Order, fractions: Sequence[float], *, put_back: bool = False,
    shape: Sequence[int] | None = None,
) -> Tensor:  # fmt: skip
    """Return the value at each fraction, ``(K, B)``."""
    grid = tuple(shape or removal.judged.domain.shape)
    return removal.values(_masks(order, fractions, grid, put_back))


def _measured(
    start: Tensor, curve: Tensor, rolled: Sequence[Tensor], fractions: Sequence[float],
    forwards: int, *, falls: bool,
) -> Measured:  # fmt: skip
    """Return the mean change along a curve, and that of the rolled copies."""
    sign = -1 if falls else 1
    values = sign * (curve - start).mean(dim=0)
    details = {"start": start.tolist(), "fractions": list(fractions), "curve": curve.T.tolist()}
    chance = None
    if rolled:
        others = torch.stack([sign * (each - start).mean(dim=0) for each in rolled])
        chance = others.mean(dim=0)
        details["copies"] = others.T.tolist()
    return Measured(values, chance, details, forwards=forwards)


def _check(metric: str, steps: int, most: float, copies: int) -> None:
    require(steps >= 1, metric, f"steps is {steps}, expected at least 1")
    require(0 < most <= 1, metric, f"most is {most}, expected a fraction of the brain, 0 to 1")
    require(copies >= 0, metric, f"copies is {copies}, expected at least 0")
