"""LIME."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.methods.base import require
from neuroxai.methods.perturbation.coalition_method import CoalitionMethod, Fit


@dataclass(frozen=True)
class LIME(CoalitionMethod):
    r"""A linear model of the target around the image, in supervoxels or regions (arXiv:1602.04938).

    .. math:: \min_{\beta} \sum_z \pi(z) \big(S(x_z) - \beta_0 - z^T \beta\big)^2
              + \lambda \|\beta\|^2, \qquad
              \pi(z) = \exp\Big(-\frac{(1 - \sqrt{|z| / M})^2}{2 w^2}\Big)

    over sets z of features that are kept, each with probability ½ (Ribeiro et al. 2016): ridge
    regression weighted by the cosine distance from the whole image. Up to 8 features, all sets are
    evaluated. Standard errors come from a jackknife. Each coefficient is divided among the
    feature's voxels: ``(B, 1, *S)``, or ``(B, C, *S)`` for features of single modalities.

    Parameters
    ----------
    features
        ``supervoxels``, ``modalities``, or an image of labels on the network's grid; see
        :func:`~neuroxai.methods.perturbation.features.make_features`.
    segments
        Approximate number of supervoxels.
    each_modality
        Whether a part of one modality is a feature of its own.
    samples
        Number of sets that are drawn for more than 8 features.
    tolerance
        Relative standard error at which sampling stops early.
    width
        The width w of the kernel, 0.25 as in the authors' implementation.
    ridge
        The penalty λ, 1 as in the authors' implementation.
    remover, value
        See :class:`~neuroxai.methods.perturbation.base.PerturbationMethod`.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 1, bias=False))
    >>> _ = torch.nn.init.ones_(network[1].weight)
    >>> x = torch.tensor([[[[3.0, -2.0, 5.0]]]])
    >>> method = LIME(features=torch.tensor([[1, 2, 3]]), remover="zero", ridge=0.0)
    >>> method.explain(WholeVolume(network, Class(0)), x).values.round(decimals=4).tolist()
    [[[[3.0, -2.0, 5.0]]]]
    """

    name: ClassVar[str] = "lime"
    title: ClassVar[str] = "LIME"
    citation: ClassVar[str] = "arXiv:1602.04938"
    units: ClassVar[str] = "change of the target per voxel"

    width: float = 0.25
    ridge: float = 1.0

    def __post_init__(self) -> None:
        """Check the kernel and the penalty."""
        super().__post_init__()
        require(self.width > 0, self.name, f"width is {self.width}, expected a number above 0")
        require(self.ridge >= 0, self.name, f"ridge is {self.ridge}, expected at least 0")

    def draw(self, features: int, count: int, generator: torch.Generator) -> Tensor:
        """Return coalitions of which each feature is a member with probability one half."""
        return torch.rand(count, features, generator=generator) < 0.5

    def fit(self, none: float, full: float, *, exact: bool) -> Fit:
        """Return the weighted ridge regression."""
        return lambda coalitions, values: weighted_ridge(
            coalitions, values, similarity(coalitions, self.width), self.ridge
        )


def similarity(coalitions: Tensor, width: float) -> Tensor:
    """Return the weights ``(n,)`` of coalitions ``(n, K)``.

    Examples
    --------
    >>> similarity(torch.tensor([[1.0, 1.0], [1.0, 0.0]]), 0.25)
    tensor([1.0000, 0.5034])
    """
    distance = 1 - coalitions.mean(dim=1).sqrt()
    return torch.exp(-0.5 * (distance / width) ** 2)


def weighted_ridge(coalitions: Tensor, values: Tensor, weights: Tensor, ridge: float) -> Tensor:
    """Return the coefficients ``(K,)`` of a ridge regression whose intercept is not penalized."""
    mean, center = (
        (weights[:, None] * each).sum(dim=0) / weights.sum()
        for each in (coalitions, values[:, None])
    )
    design, gains = coalitions - mean, values - center
    gram = design.T @ (weights[:, None] * design)
    gram = gram + ridge * torch.eye(len(gram), dtype=gram.dtype)
    right = design.T @ (weights * gains)
    found: Tensor = torch.linalg.lstsq(gram, right[:, None], driver="gelsd").solution
    return found.squeeze(1)
