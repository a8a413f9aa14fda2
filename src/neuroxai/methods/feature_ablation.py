"""Feature ablation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.core.explanation import Attribution, Quantity
from neuroxai.core.probe.probe import Probe
from neuroxai.methods.perturbation.base import PerturbationMethod
from neuroxai.methods.perturbation.features import (
    FeaturesLike,
    check_features,
    expected_features,
    make_features,
)


@dataclass(frozen=True)
class FeatureAblation(PerturbationMethod):
    r"""The change of the target if a supervoxel, region or modality is removed (arXiv:2009.07896).

    .. math:: \phi_k = S(x) - S(x_{\setminus k})

    Each feature's value is divided among its voxels, so that the map ``(B, 1, *S)``, or
    ``(B, C, *S)`` for features of single modalities, sums to :math:`\sum_k \phi_k` over any
    regions. It takes one pass per feature. Nothing is sampled, so the map has no standard error.

    Parameters
    ----------
    features
        ``supervoxels``, ``modalities``, or an image of labels on the network's grid; see
        :func:`~neuroxai.methods.perturbation.features.make_features`.
    segments
        Approximate number of supervoxels.
    each_modality
        Whether a part of one modality is a feature of its own.
    remover, value
        See :class:`~neuroxai.methods.perturbation.base.PerturbationMethod`.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1, bias=False))
    >>> _ = torch.nn.init.ones_(network[1].weight)
    >>> x, labels = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([[1, 1], [2, 0]])
    >>> method = FeatureAblation(features=labels, remover="zero")
    >>> method.explain(WholeVolume(network, Class(0)), x).values.tolist()
    [[[[1.5, 1.5], [3.0, 0.0]]]]
    """

    name: ClassVar[str] = "feature_ablation"
    title: ClassVar[str] = "Feature ablation"
    citation: ClassVar[str] = "arXiv:2009.07896"
    units: ClassVar[str] = "change of the target per voxel"

    features: FeaturesLike = "supervoxels"
    segments: int = 50
    each_modality: bool = False

    def __post_init__(self) -> None:
        """Check the features."""
        super().__post_init__()
        check_features(self.name, self.features, self.segments)

    @property
    def quantity(self) -> Quantity:
        """A feature's value, divided among its voxels."""
        return "amount"

    def forwards_at(self, x: Tensor) -> int:
        """Return the expected number of features."""
        return expected_features(self.features, self.segments, self.each_modality, x)

    def attribute(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Attribution:
        """Remove one feature after the other."""
        perturbed = self.perturbed(probe, x, generator)
        features = make_features(self.features, x, self.segments, each_modality=self.each_modality)
        full = perturbed.unchanged()
        count = max(features.counts)

        def masks() -> Iterator[Tensor]:
            for k in range(count):
                presence = x.new_ones(len(x), count)
                presence[:, k] = 0
                yield features.kept(presence)

        changes = full - torch.stack(list(perturbed.values(masks())))  # (K, B)
        values = [row[:known] for row, known in zip(changes.T, features.counts, strict=True)]
        diagnostics = {"remover": perturbed.remover.name, **features.describe(values)}
        return Attribution(features.spread(values).to(x), diagnostics)
