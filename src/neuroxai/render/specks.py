"""Specks: parts of a mask too small to be outlined in a figure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SPECK_MM2 = 25.0
"""Area below which a part or a hole has no outline. The lines of smaller ones, 5 mm across, are as
wide as the part itself at the scale of the figures, and hide the map."""


def without_specks(mask: NDArray[np.bool_], pixel_mm2: float) -> NDArray[np.bool_]:
    """Return a mask of pixels without parts and holes below :data:`SPECK_MM2`.

    The largest part stays, whatever its size. Pixels that share a corner belong to one part.

    Examples
    --------
    >>> ring = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 0, 1], [1, 1, 1, 0, 0]], bool)
    >>> without_specks(ring, pixel_mm2=4).astype(int).tolist()
    [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0]]
    """
    kept = _large_parts(mask, np.ones((3, 3)), pixel_mm2)
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    around = np.pad(~kept, 1, constant_values=True)
    return ~_large_parts(around, cross, pixel_mm2)[1:-1, 1:-1]


def _large_parts(
    mask: NDArray[np.bool_], structure: NDArray[np.generic], pixel_mm2: float
) -> NDArray[np.bool_]:
    from scipy import ndimage

    parts, count = ndimage.label(mask, structure)
    if not count:
        return mask
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    large = sizes * pixel_mm2 >= SPECK_MM2
    large[int(sizes.argmax())] = True
    kept: NDArray[np.bool_] = large[parts]
    return kept
