"""Between voxel sizes, as nnU-Net does it: there for its networks, and back for their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)

_ANISOTROPIC = 3.0
"""From this ratio of voxel edges on, the longest edge's axis is resampled by itself."""


@dataclass(frozen=True)
class Resampling:
    """Two grids over the same box, and how values are carried between them.

    Voxels are areas whose outer edges meet. Scans go to the network's grid by cubic splines, maps
    and outputs back linearly, masks and labels both ways by the nearest voxel; nothing leaves the
    range of what it was made of. Where voxels are far longer along one axis, slices across it are
    resampled in themselves, and along it the nearest one is taken. It cannot be undone exactly.

    Attributes
    ----------
    shape, mm
        The box in the scan's voxels, and their edges.
    grid, grid_mm
        The same in the network's.

    References
    ----------
    F. Isensee et al., *Nature Methods* 18, 203–211 (2021), doi:10.1038/s41592-020-01008-z.

    Examples
    --------
    >>> resampling = Resampling((4, 6, 2), (1.0, 1.0, 2.0), (2, 3, 2), (2.0, 2.0, 2.0))
    >>> small = resampling.to_grid(np.ones((4, 6, 2), np.float32))
    >>> small.shape, resampling.to_shape(small).shape
    ((2, 3, 2), (4, 6, 2))
    """

    shape: tuple[int, ...]
    mm: tuple[float, ...]
    grid: tuple[int, ...]
    grid_mm: tuple[float, ...]

    def to_grid(self, volume: NDArray[Scalar]) -> NDArray[Scalar]:
        """Carry ``(..., *shape)`` to the network's grid."""
        return _carried(volume, self.grid, 3, slow_axis(self.mm, self.grid_mm))

    def to_shape(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """Carry ``(..., *grid)`` back."""
        return _carried(array, self.shape, 1, slow_axis(self.grid_mm, self.mm))


def grid_of(shape: Sequence[int], mm: Sequence[float], needed: Sequence[float]) -> tuple[int, ...]:
    """Return how many voxels of the ``needed`` edges a box has.

    Examples
    --------
    >>> grid_of((100, 100, 30), (1.0, 1.0, 4.0), (1.0, 0.8, 1.0))
    (100, 125, 120)
    """
    return tuple(
        max(round(old / new * n), 1) for n, old, new in zip(shape, mm, needed, strict=True)
    )


def slow_axis(first: Sequence[float], second: Sequence[float]) -> int | None:
    """Return the axis that is resampled by itself: of the first grid, or else of the second.

    Examples
    --------
    >>> slow_axis((1, 1, 4), (1, 1, 1)), slow_axis((1, 1, 2), (5, 1, 1)), slow_axis((1, 1), (1, 2))
    (2, 0, None)
    """
    for edges in (first, second):
        if max(edges) / min(edges) > _ANISOTROPIC:
            longest = [axis for axis, mm in enumerate(edges) if mm == max(edges)]
            return longest[0] if len(longest) == 1 else None
    return None


def _carried(
    values: NDArray[Scalar], shape: tuple[int, ...], order: int, slow: int | None
) -> NDArray[Scalar]:
    lead, old = values.shape[: -len(shape)], values.shape[-len(shape) :]
    if old == shape:
        return values
    if not np.issubdtype(values.dtype, np.floating):
        order = 0
    flat = values.reshape(-1, *old)
    made = np.empty((len(flat), *shape), dtype=values.dtype)
    for number, each in enumerate(flat):
        wide = each.astype(np.float64)
        made[number] = (
            _resized(wide, shape, order) if slow is None else _sliced(wide, shape, order, slow)
        )
    return made.reshape(*lead, *shape)


def _sliced(volume: NDArray[Any], shape: tuple[int, ...], order: int, axis: int) -> NDArray[Any]:
    across = tuple(n for i, n in enumerate(shape) if i != axis)
    slices = [_resized(each, across, order) for each in np.moveaxis(volume, axis, 0)]
    count, wanted = len(slices), shape[axis]
    nearest = np.floor((np.arange(wanted) + 0.5) * count / wanted).astype(int)
    chosen = np.stack(slices)[np.clip(nearest, 0, count - 1)]
    return np.moveaxis(chosen, 0, axis)


def _resized(volume: NDArray[Any], shape: tuple[int, ...], order: int) -> NDArray[Any]:
    if volume.shape == shape:
        return volume
    made = _linear(volume, shape) if order == 1 else _spline(volume, shape, order)
    return np.clip(made, volume.min(), volume.max())


def _spline(volume: NDArray[Any], shape: tuple[int, ...], order: int) -> NDArray[np.float64]:
    from scipy.ndimage import zoom

    factors = [new / old for new, old in zip(shape, volume.shape, strict=True)]
    made = np.empty(shape, dtype=np.float64)
    zoom(volume, factors, output=made, order=order, mode="nearest", grid_mode=True)
    return made


def _linear(volume: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return what a spline of order 1 gives, five times sooner: every map comes through here."""
    import torch
    from torch.nn import functional

    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[volume.ndim]
    wide = torch.from_numpy(np.ascontiguousarray(volume))[None, None]
    made: NDArray[np.float64] = functional.interpolate(wide, size=shape, mode=mode)[0, 0].numpy()
    return made
