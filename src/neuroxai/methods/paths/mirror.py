"""The contralateral mirror: each side of the brain replaced by the other one."""

from __future__ import annotations

import torch
from torch import Tensor

from neuroxai.core.air import corner_value, foreground
from neuroxai.core.spatial import per_sample


def mirror_image(x: Tensor, axis: int) -> Tensor:
    r"""Return images with left and right exchanged about the midsagittal plane.

    The plane is perpendicular to the left-right axis, at the position where the brain overlaps most
    with its own mirror image:

    .. math:: s = \arg\max_s \sum_{i + j = s} \sum_v m_{i,v} \, m_{j,v}

    with the foreground :math:`m` of the lines :math:`v` along the axis; voxel :math:`i` takes the
    value of voxel :math:`s - i`. The plane is at a voxel or halfway between two, so nothing is
    interpolated. Voxels whose partner is outside the image become air. Without air, the plane is
    the middle of the image. A head that is tilted in the image is mirrored along the image's axis.

    Parameters
    ----------
    x
        Images ``(B, C, *S)``, processed independently.
    axis
        The left-right axis among the spatial ones.

    Examples
    --------
    >>> mirror_image(torch.tensor([[[0.0, 0.0, 3.0, 1.0, 1.0, 0.0]]]), 0)
    tensor([[[0., 0., 1., 1., 3., 0.]]])
    """
    brain, air = foreground(x), corner_value(x)
    lines = x.movedim(2 + axis, 2)
    mirrored = per_sample(air, lines).expand_as(lines).clone()
    n = lines.shape[2]
    for b, inside in enumerate(brain.movedim(2 + axis, 2)):
        total = _sum_of_partners(inside.reshape(n, -1))
        low, high = max(0, total - n + 1), min(n - 1, total)
        mirrored[b, :, low : high + 1] = lines[b, :, low : high + 1].flip(1)
    return mirrored.movedim(2, 2 + axis).contiguous()


def _sum_of_partners(inside: Tensor) -> int:
    """Return the sum of the indices of two mirrored voxels, of a foreground ``(n, lines)``."""
    n = len(inside)
    mask = inside.float()
    overlap = mask @ mask.T  # single precision counts up to 2^24 lines exactly
    sums = torch.arange(n, device=mask.device)
    totals = torch.zeros(2 * n - 1, dtype=torch.float64, device=mask.device)
    totals.index_add_(0, (sums[:, None] + sums[None, :]).flatten(), overlap.flatten().double())
    if not bool(totals.any()):
        return n - 1
    best = (totals == totals.max()).nonzero().flatten().tolist()
    return int(best[len(best) // 2])
