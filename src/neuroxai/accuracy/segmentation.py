"""Segmentation metrics: Dice overlap and 95th percentile Hausdorff distance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.box import bounding_box

Mask = NDArray[np.bool_]


def dice(a: Mask, b: Mask) -> float:
    """Dice overlap ``2|A∩B| / (|A| + |B|)`` of two masks of the same shape.

    Two empty masks score 1 and a single empty mask scores 0, as in the BraTS challenge.

    References
    ----------
    Dice 1945, doi:10.2307/1932409; Menze et al. 2015, doi:10.1109/TMI.2014.2377694.

    Examples
    --------
    >>> dice(np.array([True, True, False]), np.array([True, False, False]))
    0.6666666666666666
    """
    return dice_of_counts(int((a & b).sum()), int(a.sum()), int(b.sum()))


def dice_of_counts(intersection: int, first: int, second: int) -> float:
    """Dice overlap from the voxel counts of the intersection and of both masks.

    Examples
    --------
    >>> dice_of_counts(1, 2, 1), dice_of_counts(0, 0, 0)
    (0.6666666666666666, 1.0)
    """
    return 2 * intersection / (first + second) if first + second else 1.0


def hausdorff95(a: Mask, b: Mask, spacing: Sequence[float]) -> float:
    r"""95th percentile Hausdorff distance of two masks in mm.

    .. math:: \max\big(P_{95}\{d(p, \partial B) : p \in \partial A\},
              P_{95}\{d(q, \partial A) : q \in \partial B\}\big)

    The surface of a mask consists of its voxels with a face neighbor outside the mask or outside
    the image. Two empty masks have distance 0. If a single mask is empty, the distance is the
    diagonal of the image, 373 mm for a BraTS scan, as in the challenge.

    Parameters
    ----------
    a, b
        ``(*S)``, of the same shape.
    spacing
        Voxel size along each axis in mm.

    References
    ----------
    Menze et al. 2015, doi:10.1109/TMI.2014.2377694.

    Examples
    --------
    >>> a, b = np.zeros((9, 7), bool), np.zeros((9, 7), bool)
    >>> a[2, 3], b[5, 3] = True, True
    >>> hausdorff95(a, b, (2.0, 1.0)), round(hausdorff95(a, a & b, (1.0, 1.0)), 3)
    (6.0, 11.402)
    """
    from scipy.ndimage import binary_erosion, distance_transform_edt

    if not a.any() and not b.any():
        return 0.0
    if not a.any() or not b.any():
        return float(np.linalg.norm(np.multiply(a.shape, spacing)))
    # Both surfaces lie within the common bounding box.
    box = bounding_box(a | b)
    surfaces = [mask[box] & ~binary_erosion(mask[box]) for mask in (a, b)]
    distances = [distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    forward = np.percentile(distances[1][surfaces[0]], 95)
    backward = np.percentile(distances[0][surfaces[1]], 95)
    return float(max(forward, backward))
