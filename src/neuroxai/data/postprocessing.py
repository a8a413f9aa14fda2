"""What is done with a network's labels before anybody reads them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuroxai.data.case import CLASSES

__all__ = ["relabel_small_enhancement"]


def relabel_small_enhancement(
    labels: NDArray[np.uint8], voxel_mm3: float, least_mm3: float
) -> tuple[NDArray[np.uint8], float]:
    """Return labels without enhancing tumor of less than ``least_mm3`` in all, and what went.

    It is called necrosis, so that the tumor core stays as it was. What the BraTS challenge's
    winners do: a false speck where nothing enhances costs a Dice of 1.

    Parameters
    ----------
    labels
        Indices into :data:`~neuroxai.data.case.CLASSES`, ``(I, J, K)``; not changed.
    voxel_mm3
        Volume of a voxel.
    least_mm3
        Smallest volume, of the whole image together, that stays.

    Returns
    -------
    labels, volume
        The labels, and the cubic millimeters that are no longer enhancing; 0 if nothing changed.

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
