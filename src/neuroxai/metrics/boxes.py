"""Boxes that tile an image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

Box = tuple[tuple[int, int], ...]
"""First voxel and the one after the last, per axis."""


def boxes(shape: Sequence[int], size: int) -> list[Box]:
    """Return boxes of ``size`` voxels an axis that tile a grid; those at the end may be smaller.

    Examples
    --------
    >>> boxes((3, 2), 2)
    [((0, 2), (0, 2)), ((2, 3), (0, 2))]
    """
    axes = [[(low, min(low + size, n)) for low in range(0, n, size)] for n in shape]
    return list(itertools.product(*axes))


def box_slices(box: Box) -> tuple[slice, ...]:
    """Return the slices of a box."""
    return tuple(slice(low, high) for low, high in box)
