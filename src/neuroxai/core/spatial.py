"""Operations that treat ``(B, C, H, W)`` and ``(B, C, D, H, W)`` alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def spatial_shape(x: Tensor) -> tuple[int, ...]:
    """Return ``S`` of a tensor ``(B, C, *S)``; empty for a classifier's output ``(B, K)``.

    Examples
    --------
    >>> import torch
    >>> spatial_shape(torch.zeros(2, 4, 5, 6, 7))
    (5, 6, 7)
    """
    return tuple(x.shape[2:])


def spatial_mean(x: Tensor) -> Tensor:
    """Average over all spatial axes: ``(B, C, *S)`` to ``(B, C)``; ``(B, K)`` is unchanged.

    Examples
    --------
    >>> import torch
    >>> spatial_mean(torch.ones(2, 3, 4, 5)).shape
    torch.Size([2, 3])
    """
    return x.mean(dim=tuple(range(2, x.dim()))) if x.dim() > 2 else x


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Average ``(B, *S)`` over a mask of the same shape for each sample: ``(B,)``."""
    weight = mask.to(x.dtype).flatten(1)
    return (x.flatten(1) * weight).sum(dim=1) / weight.sum(dim=1)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Reshape ``(B,)`` or ``(B, C)`` so that it broadcasts over ``like`` of shape ``(B, C, *S)``.

    Examples
    --------
    >>> import torch
    >>> per_sample(torch.ones(2), torch.zeros(2, 3, 4, 5)).shape
    torch.Size([2, 1, 1, 1])
    """
    return values.reshape(*values.shape, *([1] * (like.dim() - values.dim())))


def upsample(values: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate ``(B, C, *S)`` linearly (bi-, tri-) to the grid ``size``.

    Voxels are areas, not points (``align_corners=False``), so a pooled grid stays aligned with the
    grid it was pooled from.

    Examples
    --------
    >>> import torch
    >>> upsample(torch.ones(1, 1, 2, 3), (4, 6)).shape
    torch.Size([1, 1, 4, 6])
    """
    size = tuple(int(n) for n in size)
    if spatial_shape(values) == size:
        return values
    return functional.interpolate(values, size=size, mode=_LINEAR[len(size)], align_corners=False)


def upsample_within(values: Tensor, size: Sequence[int], box: Sequence[slice]) -> Tensor:
    """Return ``upsample(values, size)`` within a box only, one axis after the other.

    For many channels, a matrix product per axis is several times faster than interpolating between
    the 2^n neighbors of every voxel, and voxels outside of the box are not computed.

    Examples
    --------
    >>> import torch
    >>> values, box = torch.rand(1, 2, 3, 4), (slice(1, 5), slice(0, 6))
    >>> whole = upsample(values, (6, 8))[:, :, 1:5, 0:6]
    >>> bool(torch.allclose(upsample_within(values, (6, 8), box), whole, atol=1e-6))
    True
    """
    for axis, (count, kept) in enumerate(zip(size, box, strict=True), start=2):
        if values.shape[axis] == count:
            values = values[(slice(None),) * axis + (kept,)]
            continue
        unit = torch.eye(values.shape[axis], dtype=values.dtype, device=values.device)
        weights = upsample(unit[None], (count,))[0, :, kept]  # (from, to)
        if axis + 1 == values.dim():
            values = values @ weights
        else:
            shape = values.shape
            after = math.prod(shape[axis + 1 :])
            mixed = weights.t() @ values.reshape(*shape[: axis + 1], after)
            values = mixed.reshape(*shape[:axis], -1, *shape[axis + 1 :])
    return values


def resample_to(values: Tensor, grid: Sequence[int], size: Sequence[int]) -> Tensor:
    """Interpolate ``(B, C, *S)`` to ``grid`` and crop the first ``size`` voxels of each axis.

    The two differ for networks that pad images at the end of their axes.

    Examples
    --------
    >>> import torch
    >>> resample_to(torch.ones(1, 1, 2, 3), (4, 6), (3, 6)).shape
    torch.Size([1, 1, 3, 6])
    """
    cut = (slice(None), slice(None), *map(slice, size))
    return upsample(values, grid)[cut]


def channel_range(x: Tensor) -> Tensor:
    """Return ``max − min`` of each channel of each sample: ``(B, C)``."""
    flat = x.flatten(2)
    return flat.amax(dim=2) - flat.amin(dim=2)


def companion(x: Tensor) -> Tensor:
    """Return images that differ from ``x`` in every statistic that may be taken over a batch.

    Every channel exceeds both its minimum and its maximum, and has another mean and spread.
    """
    axes = tuple(range(2, x.dim()))
    least, largest = x.amin(dim=axes, keepdim=True), x.amax(dim=axes, keepdim=True)
    middle, extent = (least + largest) / 2, largest - least
    return middle + 3 * (x.flip(-1) - middle) + extent / 2 + (extent == 0)
