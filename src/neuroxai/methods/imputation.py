"""Noisy linear imputation: a removed voxel becomes the weighted mean of its neighbors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from neuroxai.core.spatial import channel_range, per_sample

NOISE = 0.01
"""Standard deviation of the added noise as a fraction of each channel's range, as the authors'."""

_MOST_ITERATIONS = 1000
_TOLERANCE = 1e-4
"""Residual relative to the right-hand side; the noise is a hundred times as large."""


def impute(
    x: Tensor, removed: Tensor, generator: torch.Generator | None = None, noise: float = NOISE
) -> Tensor:
    r"""Return images whose removed voxels are solved from all others (ROAD, arXiv:2202.00449).

    Each removed voxel is the weighted mean of its neighbors, of which there are 8 in 2D and 26 in
    3D, with the weights :math:`1/d^2` of their distances,

    .. math:: \sum_{u \in N(v)} w_{uv} (y_v - y_u) = 0, \qquad v \in R

    and noise is added, so that a network cannot tell removed voxels by their smoothness. The
    authors' weights in 2D, 1/6 and 1/12, are these. Neighbors beyond the image do not count. The
    system is symmetric and positive definite, and solved by conjugate gradients.

    Parameters
    ----------
    x
        Images ``(B, C, *S)``.
    removed
        ``(B, *S)`` bool, removed in all channels.
    generator
        Draws the noise, the same for every sample; without one, none is added.
    noise
        Standard deviation of the noise as a fraction of each channel's range.

    Examples
    --------
    >>> x = torch.tensor([[[0.0, 9.0, 9.0, 3.0]]])
    >>> impute(x, torch.tensor([[False, True, True, False]]))
    tensor([[[0., 1., 2., 3.]]])
    """
    filled = torch.stack([_solve(image, gone) for image, gone in zip(x, removed, strict=True)])
    if generator is None or noise == 0:
        return filled
    drawn = torch.randn(x.shape[1:], generator=generator).to(x)
    added = filled + drawn * per_sample(noise * channel_range(x), x)
    return torch.where(removed.unsqueeze(1), added, filled)


def _solve(image: Tensor, gone: Tensor) -> Tensor:
    """Return one image ``(C, *S)`` with its removed voxels ``(*S)`` solved."""
    if not bool(gone.any()):
        return image.clone()
    if bool(gone.all()):  # nothing is left to impute from
        mean = image.flatten(1).mean(dim=1)
        return mean.reshape(-1, *[1] * gone.dim()).expand_as(image).clone()
    lowest, highest = _margins(gone)
    part = tuple(slice(a, b) for a, b in zip(lowest, highest, strict=True))
    known = image[(slice(None), *part)]
    inside = gone[part].to(known).unsqueeze(0)
    degree = _neighbors(torch.ones_like(inside))

    def apply(values: Tensor) -> Tensor:
        return (degree * values - _neighbors(values)) * inside

    right = _neighbors(known * (1 - inside)) * inside
    start = _pulled(known * (1 - inside), 1 - inside)
    solved = _conjugate_gradients(apply, right, start * inside)
    filled = image.clone()
    filled[(slice(None), *part)] = torch.where(inside.bool(), solved, known).to(image)
    return filled


def _conjugate_gradients(apply: Callable[[Tensor], Tensor], right: Tensor, start: Tensor) -> Tensor:
    """Solve ``A y = right`` for each entry of the batch."""
    y = start.clone()
    residual = right - apply(y)
    direction, square = residual.clone(), _dot(residual, residual)
    least = (_TOLERANCE**2 * _dot(right, right)).clamp(min=1e-30)
    for _ in range(_MOST_ITERATIONS):
        if bool((square <= least).all()):
            break
        image = apply(direction)
        step = square / _dot(direction, image).clamp(min=1e-300)
        y = y + step * direction
        residual = residual - step * image
        following = _dot(residual, residual)
        direction = residual + following / square.clamp(min=1e-300) * direction
        square = following
    return y


def _dot(a: Tensor, b: Tensor) -> Tensor:
    axes = tuple(range(1, a.dim()))
    return (a * b).sum(dim=axes, keepdim=True)


def _neighbors(values: Tensor) -> Tensor:
    r"""Return the sum of each voxel's neighbors, weighted by :math:`1/d^2`, of ``(C, *S)``.

    A neighbor at distance d differs in :math:`d^2` coordinates, so the sums over neighbors that
    differ in k coordinates are built up axis by axis.
    """
    differing = [values]
    for axis in range(1, values.dim()):
        shifted = [_both_sides(total, axis) for total in differing]
        same = [*differing[1:], torch.zeros_like(values)]
        differing = [values, *(a + b for a, b in zip(same, shifted, strict=True))]
    weighted = torch.zeros_like(values)
    for square, total in enumerate(differing[1:], start=1):
        weighted += total / square
    return weighted


def _both_sides(values: Tensor, axis: int) -> Tensor:
    """Return the sum of the two voxels beside each one along an axis; zero beyond the image."""
    total, n = torch.zeros_like(values), values.shape[axis]
    if n > 1:
        total.narrow(axis, 1, n - 1).add_(values.narrow(axis, 0, n - 1))
        total.narrow(axis, 0, n - 1).add_(values.narrow(axis, 1, n - 1))
    return total


def _pulled(known: Tensor, weight: Tensor) -> Tensor:
    """Fill what is not known, ``(C, *S)``, from means over ever larger blocks; for a start."""
    if bool((weight > 0).all()):
        return known
    total, count = _halved(known), _halved(weight)
    mean = torch.where(count > 0, total / count.clamp(min=1e-12), 0.0)
    coarse = _pulled(mean, (count > 0).to(weight)) if mean.shape[1:] != known.shape[1:] else mean
    fine = coarse
    for axis in range(1, known.dim()):
        fine = fine.repeat_interleave(2, dim=axis).narrow(axis, 0, known.shape[axis])
    return torch.where(weight > 0, known, fine)


def _halved(values: Tensor) -> Tensor:
    """Sum blocks of two voxels along each spatial axis of ``(C, *S)``."""
    for axis in range(1, values.dim()):
        if values.shape[axis] % 2:
            values = torch.cat([values, torch.zeros_like(values.narrow(axis, 0, 1))], dim=axis)
        values = values.unflatten(axis, (-1, 2)).sum(dim=axis + 1)
    return values


def _margins(gone: Tensor) -> tuple[list[int], list[int]]:
    """Return the box of the removed voxels with one voxel around it."""
    at = gone.nonzero()
    low = (at.amin(dim=0) - 1).clamp(min=0).tolist()
    limit = torch.tensor(gone.shape, device=at.device)
    high = torch.minimum(at.amax(dim=0) + 2, limit).tolist()
    return low, high
