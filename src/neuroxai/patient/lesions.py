"""Lesions: connected components of a mask."""

from __future__ import annotations

import numpy as np


def label_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Label the connected components of a mask; return the labels and their count.

    Voxels that share a face, an edge or a corner are connected (26 neighbors in 3D, 8 in 2D).

    Examples
    --------
    >>> labels, count = label_components(np.eye(3, dtype=bool))
    >>> count
    1
    """
    from scipy import ndimage

    labels, count = ndimage.label(mask, np.ones((3,) * mask.ndim, dtype=bool))
    return labels, int(count)
