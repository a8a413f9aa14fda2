"""Where a map lies against a mask: each metric with the value of an uninformative map.

An uninformative map is even over the brain, so its level is given by the fraction ``f`` of the
brain that the mask fills. All metrics use the map's evidence, summed over modalities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.metrics.base import OWN, Measured, Metric
from neuroxai.metrics.judged import Judged

NAN = float("nan")

Compare = Callable[[Tensor, Tensor], float]
"""Compares evidence with a mask, both flat, over the voxels that count."""


@dataclass(frozen=True)
class PointingGame(Metric):
    """Whether the largest value lies in the mask (arXiv:1608.00507).

    Where several voxels share the largest value, the fraction of them in the mask.

    Examples
    --------
    >>> a, mask = torch.tensor([[[[0.0, 2.0, 1.0]]]]), torch.tensor([[[False, True, False]]])
    >>> PointingGame()(Judged(a, torch.ones(1, 1, 1, 3), mask=mask)).values
    (1.0,)
    """

    name: ClassVar[str] = "pointing_game"
    title: ClassVar[str] = "Pointing game"
    family: ClassVar[str] = "localization"
    citation: ClassVar[str] = "arXiv:1608.00507"

    def measure(self, judged: Judged) -> Measured:
        """Look where the maximum lies, in the whole image."""
        return _everywhere(judged, _points_inside)


@dataclass(frozen=True)
class RelevanceMassAccuracy(Metric):
    r"""Fraction of the evidence in the mask (arXiv:2003.07258).

    .. math:: \sum_{v \in M} a_v \Big/ \sum_v a_v

    Examples
    --------
    >>> a, mask = torch.tensor([[[[0.0, 3.0, 1.0]]]]), torch.tensor([[[False, True, False]]])
    >>> RelevanceMassAccuracy()(Judged(a, torch.ones(1, 1, 1, 3), mask=mask)).values
    (0.75,)
    """

    name: ClassVar[str] = "relevance_mass_accuracy"
    title: ClassVar[str] = "Relevance mass accuracy"
    family: ClassVar[str] = "localization"
    citation: ClassVar[str] = "arXiv:2003.07258"

    def measure(self, judged: Judged) -> Measured:
        """Measure over the whole image, so that evidence in air counts against a map."""
        return _everywhere(judged, _mass_inside)


@dataclass(frozen=True)
class RelevanceRankAccuracy(Metric):
    r"""Fraction of the k highest voxels in the mask of k voxels (arXiv:2003.07258).

    .. math:: |T_k \cap M| \, / \, k, \qquad k = |M|

    Of voxels with the same value at the border of the first k, an equal fraction is taken.

    Examples
    --------
    >>> a, mask = torch.tensor([[[[0.0, 3.0, 1.0]]]]), torch.tensor([[[True, True, False]]])
    >>> RelevanceRankAccuracy()(Judged(a, torch.ones(1, 1, 1, 3), mask=mask)).values
    (0.5,)
    """

    name: ClassVar[str] = "relevance_rank_accuracy"
    title: ClassVar[str] = "Relevance rank accuracy"
    family: ClassVar[str] = "localization"
    citation: ClassVar[str] = "arXiv:2003.07258"

    def measure(self, judged: Judged) -> Measured:
        """Rank the whole image."""
        return _everywhere(judged, _top_inside)


@dataclass(frozen=True)
class MatchedIoU(Metric):
    r"""Intersection over union of the mask with the highest voxels of the same volume.

    .. math:: \frac{r}{2 - r}

    with the relevance rank accuracy ``r``: no threshold has to be chosen, and a map is not rewarded
    for being small (arXiv:2003.07258 for the matched volume).

    Examples
    --------
    >>> a, mask = torch.tensor([[[[0.0, 3.0, 1.0]]]]), torch.tensor([[[True, True, False]]])
    >>> round(MatchedIoU()(Judged(a, torch.ones(1, 1, 1, 3), mask=mask)).values[0], 4)
    0.3333
    """

    name: ClassVar[str] = "matched_iou"
    title: ClassVar[str] = "IoU at matched volume"
    family: ClassVar[str] = "localization"
    citation: ClassVar[str] = "arXiv:2003.07258"

    def measure(self, judged: Judged) -> Measured:
        """Rank the whole image."""
        found = _everywhere(judged, _top_inside)
        rank, chance = torch.as_tensor(found.values), torch.as_tensor(found.chance)
        return Measured(rank / (2 - rank), chance / (2 - chance), found.details)


@dataclass(frozen=True)
class AUROC(Metric):
    r"""Area under the receiver operating characteristic, in the brain (doi:10.1148/radiology.143.1.7063747).

    .. math:: P(a_u > a_v) + \tfrac12 P(a_u = a_v), \qquad u \in M,\; v \in \mathrm{brain} \setminus M

    Air is left out: a map that is zero there would reach a high value without telling anything.
    Undefined where the mask fills the brain.

    Examples
    --------
    >>> a, mask = torch.tensor([[[[0.0, 3.0, 1.0]]]]), torch.tensor([[[False, True, True]]])
    >>> AUROC()(Judged(a, torch.ones(1, 1, 1, 3), mask=mask)).values
    (1.0,)
    """  # noqa: E501

    name: ClassVar[str] = "auroc"
    title: ClassVar[str] = "AUROC"
    family: ClassVar[str] = "localization"
    citation: ClassVar[str] = "doi:10.1148/radiology.143.1.7063747"

    def measure(self, judged: Judged) -> Measured:
        """Compare the voxels of the mask with those of the brain around it."""
        found = _in_brain(judged, auroc)
        return Measured(found, torch.full_like(found, 0.5))


@dataclass(frozen=True)
class AUPRC(Metric):
    r"""Area under the precision-recall curve, in the brain, as average precision.

    .. math:: \sum_t (R_t - R_{t-1}) \, P_t

    over all thresholds t (doi:10.1145/1143844.1143874). An uninformative map reaches the fraction
    of the brain that the mask fills.

    Examples
    --------
    >>> a, mask = torch.tensor([[[[0.0, 3.0, 1.0]]]]), torch.tensor([[[False, False, True]]])
    >>> AUPRC()(Judged(a, torch.ones(1, 1, 1, 3), mask=mask)).values
    (0.5,)
    """

    name: ClassVar[str] = "auprc"
    title: ClassVar[str] = "AUPRC"
    family: ClassVar[str] = "localization"
    citation: ClassVar[str] = "doi:10.1145/1143844.1143874"

    def measure(self, judged: Judged) -> Measured:
        """Compare the voxels of the mask with those of the brain around it."""
        return Measured(_in_brain(judged, average_precision), _fraction(judged))


@dataclass(frozen=True)
class CentroidDistance(Metric):
    r"""Distance of the map's centroid to that of the mask, in mm.

    .. math:: \Big| \frac{\sum_v a_v r_v}{\sum_v a_v} - \frac{1}{|M|} \sum_{v \in M} r_v \Big|

    with the positions ``r`` in mm. An uninformative map reaches the distance of the centroid of the
    brain to that of the mask.

    Examples
    --------
    >>> a, mask = torch.tensor([[[[0.0, 3.0, 1.0]]]]), torch.tensor([[[False, True, False]]])
    >>> CentroidDistance()(Judged(a, torch.ones(1, 1, 1, 3), mask=mask)).values
    (0.25,)
    """

    name: ClassVar[str] = "centroid_distance"
    title: ClassVar[str] = "Centroid distance"
    family: ClassVar[str] = "localization"
    citation: ClassVar[str] = OWN
    higher_is_better: ClassVar[bool | None] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    unit: ClassVar[str] = "mm"

    def measure(self, judged: Judged) -> Measured:
        """Measure over the whole image."""
        edges = torch.tensor(judged.edges, dtype=torch.float64)
        at = _centroids(judged.importance, edges)
        lesion = _centroids(judged.place.double(), edges)
        brain = _centroids(judged.domain.double(), edges)
        details = {"map_mm": at.tolist(), "mask_mm": lesion.tolist()}
        return Measured((at - lesion).norm(dim=1), (brain - lesion).norm(dim=1), details)


def _everywhere(judged: Judged, compare: Compare) -> Measured:
    """Compare evidence and mask over the whole image; the chance level is that of the brain."""
    pairs = zip(judged.importance, judged.place, strict=True)
    found = [compare(a.flatten(), mask.flatten()) for a, mask in pairs]
    fraction = _fraction(judged)
    details = {"fraction_of_brain": fraction.tolist()}
    return Measured(torch.tensor(found, dtype=torch.float64), fraction, details)


def _in_brain(judged: Judged, compare: Compare) -> Tensor:
    """Compare evidence and mask over the brain and the mask, which may reach beyond it."""
    found = []
    for a, mask, inside in zip(judged.importance, judged.place, judged.domain, strict=True):
        counted = inside | mask
        found.append(compare(a[counted], mask[counted]))
    return torch.tensor(found, dtype=torch.float64)


def _fraction(judged: Judged) -> Tensor:
    """Return the fraction of the brain that the mask fills, ``(B,)``."""
    mask = judged.place
    whole = (judged.domain | mask).flatten(1).sum(dim=1)
    return mask.flatten(1).sum(dim=1).double() / whole


def _points_inside(a: Tensor, mask: Tensor) -> float:
    highest = a.max()
    return float(mask[a == highest].double().mean()) if highest > 0 else NAN


def _mass_inside(a: Tensor, mask: Tensor) -> float:
    total = a.sum()
    return float(a[mask].sum() / total) if total > 0 else NAN


def _top_inside(a: Tensor, mask: Tensor) -> float:
    if not bool((a > 0).any()):
        return NAN
    k = int(mask.sum())
    border = a.topk(k).values[-1]
    above, level = a > border, a == border
    missing = k - int(above.sum())
    share = missing / int(level.sum())
    return (int((above & mask).sum()) + share * int((level & mask).sum())) / k


def auroc(a: Tensor, mask: Tensor) -> float:
    """Return the area under the ROC curve of ``a`` ``(n,)`` for the mask ``(n,)``."""
    inside, outside = int(mask.sum()), int((~mask).sum())
    if not inside or not outside:
        return NAN
    _, index, counts = a.unique(sorted=True, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks = last - (counts - 1) / 2
    total = float(ranks[index][mask].sum())
    return (total - inside * (inside + 1) / 2) / (inside * outside)


def average_precision(a: Tensor, mask: Tensor) -> float:
    """Return the average precision of ``a`` ``(n,)`` for the mask ``(n,)``."""
    values, index, counts = a.unique(sorted=True, return_inverse=True, return_counts=True)
    hits = torch.zeros(len(values), dtype=torch.float64)
    hits.index_add_(0, index, mask.double())
    found, taken = hits.flip(0).cumsum(0), counts.flip(0).cumsum(0)
    gained = hits.flip(0) / hits.sum()
    return float((gained * found / taken).sum())


def _centroids(weights: Tensor, edges: Tensor) -> Tensor:
    """Return the centroids ``(B, d)`` of weights ``(B, *S)``, in mm from the first voxel."""
    total = weights.flatten(1).sum(dim=1)
    axes = range(1, weights.dim())
    found = []
    for axis in axes:
        line = weights.sum(dim=[other for other in axes if other != axis])
        at = torch.arange(weights.shape[axis], dtype=torch.float64) * edges[axis - 1]
        found.append((line * at).sum(dim=1) / total)
    return torch.stack(found, dim=1)
