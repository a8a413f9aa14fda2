"""Resampling of scans and maps between voxel sizes, following nnU-Net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)

_ANISOTROPIC = 3.0
"""Ratio of voxel edges above which the longest axis is resampled separately, as in nnU-Net."""


@dataclass(frozen=True)
class Resampling:
    """Resampling between two grids of the same box.

    The outer edges of the first and last voxels coincide. Scans are resampled to the network's grid
    with cubic splines, maps and outputs back linearly, masks and labels both ways to the nearest
    voxel; amounts per voxel are distributed instead. Results are clipped to the input's range. If
    voxels are much longer along one axis, each slice across that axis is resampled in 2D, and along
    the axis the nearest slice is used. Resampling back and forth is not exact.

    Attributes
    ----------
    shape, mm
        Size of the box in the scan's voxels, and their edges in mm.
    grid, grid_mm
        Size of the box in the network's voxels, and their edges in mm.
    order, order_back
        Orders of the splines there and back.
    separate
        Whether slices of thick voxels are resampled in 2D.

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
    order: int = 3
    order_back: int = 1
    separate: bool = True

    def to_grid(self, volume: NDArray[Scalar]) -> NDArray[Scalar]:
        """Resample ``(..., *shape)`` to the network's grid ``(..., *grid)``."""
        axis = anisotropic_axis(self.mm, self.grid_mm) if self.separate else None
        return _resample(volume, self.grid, self.order, axis)

    def to_shape(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """Resample ``(..., *grid)`` to the scan's voxels ``(..., *shape)``."""
        axis = anisotropic_axis(self.grid_mm, self.mm) if self.separate else None
        return _resample(array, self.shape, self.order_back, axis)

    def distribute(self, amounts: NDArray[Scalar]) -> NDArray[Scalar]:
        r"""Distribute amounts per voxel ``(..., *grid)`` over the scan's voxels ``(..., *shape)``.

        .. math:: y_i = \sum_j \frac{|v_i \cap w_j|}{|w_j|} \, x_j

        with the boxes :math:`v_i` of the scan's voxels and :math:`w_j` of the network's. An amount
        is spread evenly over the box of its voxel, so the sum is preserved, in every block of
        network voxels that is a block of scan voxels too.

        Examples
        --------
        >>> resampling = Resampling((4, 3), (1.0, 1.0), (2, 3), (2.0, 1.0))
        >>> resampling.distribute(np.array([[2.0, 0.0, 4.0], [0.0, 6.0, 0.0]]))[:2].tolist()
        [[1.0, 0.0, 2.0], [1.0, 0.0, 2.0]]
        """
        spread: NDArray[Any] = amounts.astype(np.float64)
        for axis, (new, old) in enumerate(zip(self.shape, self.grid, strict=True)):
            if new == old:
                continue
            place = axis - len(self.shape)
            moved = np.moveaxis(spread, place, -1) @ _overlap_shares(new, old).T
            spread = np.moveaxis(moved, -1, place)
        result: NDArray[Scalar] = np.ascontiguousarray(spread, dtype=amounts.dtype)
        return result


def resampled_shape(
    shape: Sequence[int], mm: Sequence[float], new_mm: Sequence[float]
) -> tuple[int, ...]:
    """Return the shape of a box in voxels of other edges.

    Examples
    --------
    >>> resampled_shape((100, 100, 30), (1.0, 1.0, 4.0), (1.0, 0.8, 1.0))
    (100, 125, 120)
    """
    return tuple(
        max(round(old / new * n), 1) for n, old, new in zip(shape, mm, new_mm, strict=True)
    )


def anisotropic_axis(first: Sequence[float], second: Sequence[float]) -> int | None:
    """Return the axis to resample separately: that of the first grid, otherwise of the second.

    Examples
    --------
    >>> anisotropic_axis((1, 1, 4), (1, 1, 1)), anisotropic_axis((1, 1, 2), (5, 1, 1))
    (2, 0)
    >>> anisotropic_axis((1, 1), (1, 2)) is None
    True
    """
    for edges in (first, second):
        if max(edges) / min(edges) > _ANISOTROPIC:
            longest = [axis for axis, mm in enumerate(edges) if mm == max(edges)]
            return longest[0] if len(longest) == 1 else None
    return None


def _overlap_shares(new: int, old: int) -> NDArray[np.float64]:
    """Return the share of each old voxel in each new one, ``(new, old)``; columns sum to 1."""
    # In units of 1 / (new * old) of the axis, all edges are integers.
    new_edges, old_edges = np.arange(new + 1) * old, np.arange(old + 1) * new
    high = np.minimum(new_edges[1:, None], old_edges[None, 1:])
    low = np.maximum(new_edges[:-1, None], old_edges[None, :-1])
    shares: NDArray[np.float64] = np.maximum(high - low, 0) / new
    return shares


def _resample(
    values: NDArray[Scalar], shape: tuple[int, ...], order: int, separate: int | None
) -> NDArray[Scalar]:
    lead, old = values.shape[: -len(shape)], values.shape[-len(shape) :]
    if old == shape:
        return values
    if not np.issubdtype(values.dtype, np.floating):
        order = 0
    flat = values.reshape(-1, *old)
    resampled = np.empty((len(flat), *shape), dtype=values.dtype)
    for number, each in enumerate(flat):
        volume = each.astype(np.float64)
        resampled[number] = (
            _resize(volume, shape, order)
            if separate is None
            else _resize_slices(volume, shape, order, separate)
        )
    return resampled.reshape(*lead, *shape)


def _resize_slices(
    volume: NDArray[Any], shape: tuple[int, ...], order: int, axis: int
) -> NDArray[Any]:
    plane = tuple(n for i, n in enumerate(shape) if i != axis)
    slices = [_resize(each, plane, order) for each in np.moveaxis(volume, axis, 0)]
    count, wanted = len(slices), shape[axis]
    nearest = np.floor((np.arange(wanted) + 0.5) * count / wanted).astype(int)
    chosen = np.stack(slices)[np.clip(nearest, 0, count - 1)]
    return np.moveaxis(chosen, 0, axis)


def _resize(volume: NDArray[Any], shape: tuple[int, ...], order: int) -> NDArray[Any]:
    if volume.shape == shape:
        return volume
    resized = _linear(volume, shape) if order == 1 else _spline(volume, shape, order)
    return np.clip(resized, volume.min(), volume.max())


def _spline(volume: NDArray[Any], shape: tuple[int, ...], order: int) -> NDArray[np.float64]:
    from scipy.ndimage import zoom

    factors = [new / old for new, old in zip(shape, volume.shape, strict=True)]
    resized = np.empty(shape, dtype=np.float64)
    zoom(volume, factors, output=resized, order=order, mode="nearest", grid_mode=True)
    return resized


def _linear(volume: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Resize linearly, five times as fast as ``scipy.ndimage.zoom`` of order 1."""
    import torch
    from torch.nn import functional

    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[volume.ndim]
    batch = torch.from_numpy(np.ascontiguousarray(volume))[None, None]
    resized: NDArray[np.float64] = functional.interpolate(batch, size=shape, mode=mode)[
        0, 0
    ].numpy()
    return resized
