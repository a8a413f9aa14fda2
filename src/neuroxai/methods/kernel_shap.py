"""KernelSHAP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.methods.perturbation.coalition_method import CoalitionMethod, Fit
from neuroxai.methods.perturbation.shapley import shapley_values


@dataclass(frozen=True)
class KernelSHAP(CoalitionMethod):
    r"""The Shapley values of supervoxels, regions or modalities (arXiv:1705.07874).

    The value :math:`v(S)` of a set of features is that of the image in which the others are
    removed. The Shapley values solve

    .. math:: \min_\phi \sum_S \frac{M - 1}{\binom{M}{|S|} \, |S| \, (M - |S|)}
              \Big(v(S) - v(\emptyset) - \sum_{i \in S} \phi_i\Big)^2, \qquad
              \sum_i \phi_i = v(\text{all}) - v(\emptyset)

    (Lundberg and Lee 2017). Up to 8 features they are exact, from all sets. Beyond, sets are drawn
    in proportion to these weights, each with its complement, and the constraint is kept exactly
    (Covert and Lee 2021, arXiv:2012.01536); standard errors come from a jackknife. Each value is
    divided among the feature's voxels, so the map ``(B, 1, *S)``, or ``(B, C, *S)`` for features of
    single modalities, adds up to :math:`v(\text{all}) - v(\emptyset)`.

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
    remover, value
        See :class:`~neuroxai.methods.perturbation.base.PerturbationMethod`.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> def product(x):
    ...     return (x[:, 0, 0, 0] * x[:, 0, 0, 1])[:, None]
    >>> class Product(torch.nn.Module):
    ...     forward = staticmethod(product)
    >>> x = torch.tensor([[[[3.0, 2.0, 5.0]]]])
    >>> method = KernelSHAP(features=torch.tensor([[1, 2, 3]]), remover="zero")
    >>> method.explain(WholeVolume(Product(), Class(0)), x).values.tolist()
    [[[[3.0, 3.0, 0.0]]]]
    """

    name: ClassVar[str] = "kernel_shap"
    title: ClassVar[str] = "KernelSHAP"
    citation: ClassVar[str] = "arXiv:1705.07874"
    units: ClassVar[str] = "change of the target per voxel"

    def draw(self, features: int, count: int, generator: torch.Generator) -> Tensor:
        """Return coalitions drawn by the weights of their sizes, each before its complement."""
        sizes = torch.arange(1, features, dtype=torch.float64)
        weights = 1 / (sizes * (features - sizes))
        size = 1 + torch.multinomial(weights, count // 2, replacement=True, generator=generator)
        order = torch.rand(count // 2, features, generator=generator).argsort(dim=1).argsort(dim=1)
        chosen = order < size[:, None]
        return torch.stack([chosen, ~chosen], dim=1).flatten(0, 1)

    def fit(self, none: float, full: float, *, exact: bool) -> Fit:
        """Return the least squares under the constraint, or the definition for all sets."""
        if exact:
            return lambda coalitions, values: shapley_values(values)
        return lambda coalitions, values: constrained_fit(coalitions, values - none, full - none)


def constrained_fit(coalitions: Tensor, gains: Tensor, total: float) -> Tensor:
    """Return the least squares ``(K,)`` of gains ``(n,)`` whose sum is given.

    Examples
    --------
    >>> coalitions = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
    >>> constrained_fit(coalitions, torch.tensor([2.0, 1.0]).double(), 5.0).tolist()
    [3.0, 2.0]
    """
    count = coalitions.shape[1]
    mean = torch.full((count,), total / count, dtype=torch.float64)
    # The differences from the mean are orthogonal to the vector of ones.
    ones = torch.ones(count, 1, dtype=torch.float64)
    basis = torch.linalg.qr(torch.cat([ones, torch.eye(count)[:, 1:].double()], dim=1)).Q[:, 1:]
    design = coalitions @ basis
    rest = (gains - coalitions @ mean)[:, None]
    solved: Tensor = torch.linalg.lstsq(design, rest, driver="gelsd").solution
    found: Tensor = mean + (basis @ solved).squeeze(1)
    return found
