"""The value of air in an image, and where the image is not air."""

from __future__ import annotations

import torch
from torch import Tensor

AIR_TOLERANCE = 0.02
"""Deviation of an air voxel from the value of air, as a fraction of the channel's range, which
allows for the ripples that interpolation leaves around a brain."""

_CORNER = 0.05
"""Edge of the blocks in the corners as a fraction of each axis: 12 voxels of 240, which a head does
not reach in a usual field of view."""

_RANGE = 0.001
"""Fraction of voxels left out at each end of the range, so that single outliers do not set it."""

_DARK = 0.01
"""Percentile that counts as the darkest tissue: the minimum is often a single faulty voxel."""

_MAX_VOXELS = 2**20
"""Voxels from which percentiles are taken: at 1 % the error is below 0.02 percentage points."""


def corner_value(x: Tensor) -> Tensor:
    """Return the median ``(B, C)`` of the corners of images ``(B, C, *S)``.

    Examples
    --------
    >>> corner_value(torch.tensor([[[-1.0, 2.0, 4.0, 0.0, -1.0]]]))
    tensor([[-1.]])
    """
    for axis in range(2, x.dim()):
        n = x.shape[axis]
        width = max(1, int(_CORNER * n))
        index = torch.arange(n, device=x.device)
        x = x.index_select(axis, index[(index < width) | (index >= n - width)])
    return x.flatten(2).median(dim=2).values


def air_value(x: Tensor) -> Tensor:
    r"""Return the value of air ``(B, C)`` of images ``(B, C, *S)``, on the scale of each image.

    It is the median of the corners, for example 0 of a skull-stripped scan and −1024 of a CT. Where
    the corners are not the darkest part, they are filled, as with 0 after a z-score within the
    brain, or they are tissue. Air is then 0 if no value is negative; otherwise, it is the first
    percentile of the voxels that differ from the corners, because the minimum may be an outlier.

    Examples
    --------
    >>> scan = torch.tensor([-1024.0] * 6 + [20.0, 40.0, 60.0] + [-1024.0] * 6)
    >>> air_value(scan.reshape(1, 1, 15)), air_value(scan.reshape(1, 1, 15) + 1024)
    (tensor([[-1024.]]), tensor([[0.]]))
    """
    corner = corner_value(x)
    found = [
        _darker(values, float(corner[b, c]))
        for b, sample in enumerate(x.flatten(2))
        for c, values in enumerate(sample)
    ]
    return torch.tensor(found, dtype=x.dtype, device=x.device).reshape(corner.shape)


def _darker(values: Tensor, corner: float) -> float:
    """Return the value of air of one channel ``(V,)`` whose corners have a value."""
    values = _sample(values).sort().values
    last = values.numel() - 1
    extent = float(values[round((1 - _RANGE) * last)] - values[round(_RANGE * last)])
    other = values[(values - corner).abs() > AIR_TOLERANCE * extent]
    if not other.numel():
        return corner
    dark = float(other[round(_DARK * (other.numel() - 1))])
    if corner <= dark:
        return corner
    return 0.0 if float(values[0]) >= 0 else dark


def foreground(x: Tensor) -> Tensor:
    """Return where images ``(B, C, *S)`` are not air, ``(B, 1, *S)`` bool.

    Voxels whose channels are all within 2 % of the corners' median are air, relative to the largest
    deviation from it but for single outliers.
    """
    away = (x.flatten(2) - corner_value(x).unsqueeze(2)).abs()
    some = _sample(away)
    largest = some.kthvalue(1 + round((1 - _RANGE) * (some.shape[2] - 1)), dim=2).values
    inside = (away > AIR_TOLERANCE * largest.unsqueeze(2)).any(dim=1, keepdim=True)
    return inside.reshape(x.shape[0], 1, *x.shape[2:])


def _sample(values: Tensor) -> Tensor:
    """Return evenly spaced voxels of ``(..., V)``, few enough to sort."""
    step = -(-values.shape[-1] // _MAX_VOXELS) | 1  # odd, so that it does not follow even rows
    return values[..., ::step]
