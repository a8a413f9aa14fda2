"""The smallest box around a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def bounding_box(mask: NDArray[np.bool_], margin: Sequence[int] | int = 0) -> tuple[slice, ...]:
    """Return the slices of the smallest box that holds a mask, the whole grid if it is empty.

    Parameters
    ----------
    mask
        ``(*S)``.
    margin
        Voxels that the box is widened by to either side, as far as the grid reaches; one number,
        or one for each axis.

    Examples
    --------
    >>> mask = np.zeros((6, 5), bool)
    >>> mask[2:4, 3] = True
    >>> bounding_box(mask), bounding_box(mask, margin=(1, 3))
    ((slice(2, 4, None), slice(3, 4, None)), (slice(1, 5, None), slice(0, 5, None)))
    """
    extra = [margin] * mask.ndim if isinstance(margin, int) else list(margin)
    box = []
    for axis, (size, more) in enumerate(zip(mask.shape, extra, strict=True)):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        held = np.flatnonzero(mask.any(axis=others))
        low, high = (int(held[0]), int(held[-1]) + 1) if held.size else (0, size)
        box.append(slice(max(0, low - more), min(size, high + more)))
    return tuple(box)
