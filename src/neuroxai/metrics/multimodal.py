"""Whether a map gives each modality the weight that it has for the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.core.errors import MetricError
from neuroxai.metrics.agreement import pearson, spearman
from neuroxai.metrics.base import Measured, Metric, require
from neuroxai.metrics.judged import Judged

CORRELATIONS = {"spearman": spearman, "pearson": pearson}


@dataclass(frozen=True)
class ModalityCorrelation(Metric):
    r"""Correlation of the map's share of each modality with its importance (arXiv:2203.06487).

    .. math:: \rho\Big(\sum_v a_{m,v},\; |\phi_m|\Big)

    over modalities m, with importances φ that are known otherwise, for example exact modality
    Shapley values. With four modalities a correlation has few values; undefined for a map that all
    modalities share.

    Parameters
    ----------
    correlation
        ``spearman`` or ``pearson``.
    """

    name: ClassVar[str] = "modality_correlation"
    title: ClassVar[str] = "Modality importance correlation"
    family: ClassVar[str] = "multimodal"
    citation: ClassVar[str] = "arXiv:2203.06487"
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    correlation: str = "spearman"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.correlation in CORRELATIONS, self.name,
            f"correlation is {self.correlation!r}, expected {' or '.join(CORRELATIONS)}",
        )  # fmt: skip

    def measure(self, judged: Judged) -> Measured:
        """Compare shares and importances of each sample."""
        phi = _importances(judged)
        shares = judged.values.double().abs().flatten(2).sum(dim=2)
        if shares.shape[1] != phi.shape[1] or phi.shape[1] < 2:
            note = "the map has one channel for all modalities"
            return Measured([float("nan")] * len(phi), notes=(note,))
        compare = CORRELATIONS[self.correlation]
        found = [compare(s, p.abs()) for s, p in zip(shares, phi, strict=True)]
        return Measured(found, details={"shares": _normalized(shares).tolist()})


@dataclass(frozen=True)
class MSFI(Metric):
    r"""Localization weighted by the importance of each modality (arXiv:2203.06487).

    .. math:: \sum_m \hat\phi_m \frac{\sum_{v \in M} \max(a_{m,v}, 0)}{\sum_v \max(a_{m,v}, 0)},
              \qquad \hat\phi_m = \frac{|\phi_m|}{\sum_k |\phi_k|}

    The authors scale φ from its least to its largest value, which drops the least important
    modality; this value is printed beside it (``min_max``). An uninformative map reaches the
    fraction of the brain that the mask fills.
    """

    name: ClassVar[str] = "msfi"
    title: ClassVar[str] = "MSFI"
    family: ClassVar[str] = "multimodal"
    citation: ClassVar[str] = "arXiv:2203.06487"

    def measure(self, judged: Judged) -> Measured:
        """Measure the share in the mask of each modality."""
        phi, mask = _importances(judged).abs(), judged.place
        positive = judged.values.double().cpu().clamp(min=0)
        positive = positive.expand(-1, phi.shape[1], *positive.shape[2:])
        total = positive.flatten(2).sum(dim=2)
        inside = (positive * mask.unsqueeze(1)).flatten(2).sum(dim=2)
        local = torch.where(total > 0, inside / total.clamp(min=1e-300), 0.0)
        found = (_normalized(phi) * local).sum(dim=1)
        found[~(total > 0).any(dim=1)] = float("nan")
        low, high = phi.amin(dim=1, keepdim=True), phi.amax(dim=1, keepdim=True)
        theirs = ((phi - low) / (high - low) * local).sum(dim=1) / ((phi - low) / (high - low)).sum(
            dim=1
        )
        brain = (judged.domain | mask).flatten(1).sum(dim=1)
        return Measured(
            found, mask.flatten(1).sum(dim=1).double() / brain,
            {"local": local.tolist(), "min_max": theirs.tolist()},
        )  # fmt: skip


def _importances(judged: Judged) -> Tensor:
    if judged.importances is None:
        raise MetricError(
            "the metric needs the importance of each modality, for example modality Shapley "
            "values: give importances="
        )
    return judged.importances.double().cpu()


def _normalized(values: Tensor) -> Tensor:
    return values / values.sum(dim=1, keepdim=True)
