"""Agreement of two maps: rank correlation over the brain."""

from __future__ import annotations

from torch import Tensor

NAN = float("nan")


def ranks(values: Tensor) -> Tensor:
    """Return the ranks of values ``(n,)`` from 1, with the mean rank for equal ones.

    Examples
    --------
    >>> import torch
    >>> ranks(torch.tensor([3.0, 1.0, 3.0]))
    tensor([2.5000, 1.0000, 2.5000], dtype=torch.float64)
    """
    _, index, counts = values.unique(sorted=True, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranked: Tensor = (last - (counts - 1) / 2)[index]
    return ranked


def pearson(one: Tensor, other: Tensor) -> float:
    """Return Pearson's correlation of two vectors ``(n,)``; NaN if one is constant."""
    a, b = one.double() - one.double().mean(), other.double() - other.double().mean()
    scale = float(a.norm() * b.norm())
    return float(a @ b) / scale if scale > 0 else NAN


def spearman(one: Tensor, other: Tensor) -> float:
    """Return Spearman's rank correlation of two vectors ``(n,)``; NaN if one is constant.

    Examples
    --------
    >>> import torch
    >>> round(spearman(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([1.0, 4.0, 5.0])), 6)
    1.0
    """
    return pearson(ranks(one), ranks(other))


def map_agreement(one: Tensor, other: Tensor, domain: Tensor) -> list[float]:
    """Return the rank correlation of two maps ``(B, C, *S)`` over a domain ``(B, *S)``."""
    found = []
    for a, b, inside in zip(one, other, domain, strict=True):
        found.append(spearman(a[:, inside].flatten(), b[:, inside].flatten()))
    return found
