"""How well two masks agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.box import bounding_box

Mask = NDArray[np.bool_]


def dice(a: Mask, b: Mask) -> float:
    """Return the Dice overlap ``2|A∩B| / (|A| + |B|)`` of two masks of one shape.

    Two empty masks agree, so they score 1; one empty mask scores 0. That is how the BraTS
    challenge counts.

    References
    ----------
    Dice 1945, doi:10.2307/1932409; Menze et al. 2015, doi:10.1109/TMI.2014.2377694.

    Examples
    --------
    >>> dice(np.array([True, True, False]), np.array([True, False, False]))
    0.6666666666666666
    """
    return dice_of_counts(int((a & b).sum()), int(a.sum()), int(b.sum()))


def dice_of_counts(both: int, one: int, other: int) -> float:
    """Return the Dice overlap of two masks from their voxel counts.

    Examples
    --------
    >>> dice_of_counts(1, 2, 1), dice_of_counts(0, 0, 0)
    (0.6666666666666666, 1.0)
    """
    return 2 * both / (one + other) if one + other else 1.0


def hausdorff95(a: Mask, b: Mask, spacing: Sequence[float]) -> float:
    r"""Return the 95th percentile of the distances between two masks' surfaces, in mm.

    .. math:: \max\big(P_{95}\{d(p, \partial B) : p \in \partial A\},
              P_{95}\{d(q, \partial A) : q \in \partial B\}\big)

    A surface are the voxels with a neighbor across a face outside the mask, or at the image's
    border. Two empty masks are 0 mm apart; one empty mask is as far off as the image allows, its
    diagonal: 373 mm for a BraTS scan, as the challenge counts.

    Parameters
    ----------
    a, b
        ``(*S)``, of one shape.
    spacing
        Voxel edges along the axes in mm.

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
    # Both masks in their common box: outside it no surface and no nearest point can lie.
    box = bounding_box(a | b)
    surfaces = [mask[box] & ~binary_erosion(mask[box]) for mask in (a, b)]
    distances = [distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    there = np.percentile(distances[1][surfaces[0]], 95)
    back = np.percentile(distances[0][surfaces[1]], 95)
    return float(max(there, back))
