"""Bounding box of a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def bounding_box(mask: NDArray[np.bool_], margin: Sequence[int] | int = 0) -> tuple[slice, ...]:
    """Return the slices of a mask's bounding box; the whole grid if the mask is empty.

    Parameters
    ----------
    mask
        ``(*S)``.
    margin
        Voxels added on either side up to the edge of the grid, for all axes or for each.

    Examples
    --------
    >>> mask = np.zeros((6, 5), bool)
    >>> mask[2:4, 3] = True
    >>> bounding_box(mask), bounding_box(mask, margin=(1, 3))
    ((slice(2, 4, None), slice(3, 4, None)), (slice(1, 5, None), slice(0, 5, None)))
    """
    margins = [margin] * mask.ndim if isinstance(margin, int) else list(margin)
    box = []
    for axis, (size, extra) in enumerate(zip(mask.shape, margins, strict=True)):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        inside = np.flatnonzero(mask.any(axis=others))
        low, high = (int(inside[0]), int(inside[-1]) + 1) if inside.size else (0, size)
        box.append(slice(max(0, low - extra), min(size, high + extra)))
    return tuple(box)
