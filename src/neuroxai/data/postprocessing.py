"""Postprocessing of predicted label maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuroxai.data.case import CLASSES

__all__ = ["relabel_small_enhancement"]


def relabel_small_enhancement(
    labels: NDArray[np.uint8], voxel_mm3: float, least_mm3: float
) -> tuple[NDArray[np.uint8], float]:
    """Relabel enhancing tumor as necrosis if its total volume is below ``least_mm3``.

    The tumor core is unchanged. Winning entries of the BraTS challenge use this step, because a
    single false voxel in a case without enhancing tumor lowers its Dice score from 1 to 0.

    Parameters
    ----------
    labels
        Indices into :data:`~neuroxai.data.case.CLASSES`, ``(I, J, K)``; not changed.
    voxel_mm3
        Volume of a voxel.
    least_mm3
        Smallest total volume of enhancing tumor in the image that is kept.

    Returns
    -------
    labels, volume
        The labels, and the volume in mm³ that was relabeled; 0 if nothing changed.

    References
    ----------
    F. Isensee et al. 2021, doi:10.1007/978-3-030-72087-2_11.

    Examples
    --------
    >>> labels = np.array([[[0, 2, 3, 1]]], np.uint8)
    >>> relabel_small_enhancement(labels, 8.0, 100.0)
    (array([[[0, 2, 1, 1]]], dtype=uint8), 8.0)
    >>> relabel_small_enhancement(labels, 8.0, 5.0)
    (array([[[0, 2, 3, 1]]], dtype=uint8), 0.0)
    """
    enhancing = labels == CLASSES.index("ET")
    volume = float(enhancing.sum()) * voxel_mm3
    if not 0 < volume < least_mm3:
        return labels, 0.0
    return np.where(enhancing, np.uint8(CLASSES.index("NCR")), labels), volume
