"""Steps of a spatial preprocessing, each with its inverse: reorientation, crop and resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Scalar = TypeVar("Scalar", bound=np.generic)
Interpolation = Literal["linear", "nearest", "area", "cubic"]

_CUBIC = 3
"""Order of the splines of ``cubic``."""


@dataclass(frozen=True)
class Reorientation:
    """Permutation and flips of the axes.

    Attributes
    ----------
    shape
        The grid before.
    axes, flips
        Per axis of the new grid, the axis of the old one, and whether it is flipped.

    Examples
    --------
    >>> move = Reorientation((2, 3), (1, 0), (False, True))
    >>> move.forward(np.arange(6).reshape(2, 3)).tolist()
    [[3, 0], [4, 1], [5, 2]]
    >>> move.backward(move.forward(np.arange(6).reshape(2, 3))).tolist()
    [[0, 1, 2], [3, 4, 5]]
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    flips: tuple[bool, ...]

    @property
    def grid(self) -> tuple[int, ...]:
        """The grid after."""
        return tuple(self.shape[axis] for axis in self.axes)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """From indices of the new grid to those of the old one, homogeneous."""
        n = len(self.shape)
        matrix = np.zeros((n + 1, n + 1))
        matrix[n, n] = 1
        for new, (old, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            matrix[old, new] = -1 if flip else 1
            matrix[old, n] = self.shape[old] - 1 if flip else 0
        return matrix

    def forward(self, array: NDArray[Scalar], fill: float = 0.0) -> NDArray[Scalar]:
        """Map ``(..., *shape)`` to ``(..., *grid)``."""
        lead = array.ndim - len(self.shape)
        order = (*range(lead), *(lead + axis for axis in self.axes))
        return np.ascontiguousarray(array.transpose(order)[self._steps()])

    def backward(
        self, array: NDArray[Scalar], fill: float = 0.0, *, amounts: bool = False
    ) -> NDArray[Scalar]:
        """Map ``(..., *grid)`` to ``(..., *shape)``."""
        lead = array.ndim - len(self.shape)
        back = (self.axes.index(axis) for axis in range(len(self.shape)))
        return np.ascontiguousarray(
            array[self._steps()].transpose((*range(lead), *(lead + axis for axis in back)))
        )

    def _steps(self) -> Any:
        return (..., *(slice(None, None, -1 if flip else 1) for flip in self.flips))


@dataclass(frozen=True)
class Crop:
    """Crop or padding of every axis.

    Attributes
    ----------
    shape
        The grid before.
    start
        Index of the first voxel per axis; negative if padded.
    grid
        The grid after.
    value
        Value of the padding of an image.

    Examples
    --------
    >>> move = Crop((3,), (-1,), (3,), value=9.0)
    >>> move.forward(np.array([1.0, 2.0, 3.0])), move.backward(np.array([1.0, 2.0, 3.0]))
    (array([9., 1., 2.]), array([2., 3., 0.]))
    """

    shape: tuple[int, ...]
    start: tuple[int, ...]
    grid: tuple[int, ...]
    value: float = 0.0

    @property
    def matrix(self) -> NDArray[np.float64]:
        """From indices of the new grid to those of the old one, homogeneous."""
        matrix = np.eye(len(self.shape) + 1)
        matrix[:-1, -1] = self.start
        return matrix

    @property
    def pads(self) -> bool:
        """Whether part of the new grid is outside of the old one."""
        ends = zip(self.start, self.grid, self.shape, strict=True)
        return any(first < 0 or first + size > n for first, size, n in ends)

    @property
    def cuts(self) -> bool:
        """Whether part of the old grid is outside of the new one."""
        ends = zip(self.start, self.grid, self.shape, strict=True)
        return any(first > 0 or first + size < n for first, size, n in ends)

    def forward(self, array: NDArray[Scalar], fill: float = 0.0) -> NDArray[Scalar]:
        """Map ``(..., *shape)`` to ``(..., *grid)``; padding is ``value``, or ``fill`` in masks."""
        value = self.value if np.issubdtype(array.dtype, np.floating) else fill
        lead = array.shape[: array.ndim - len(self.grid)]
        cropped = np.full((*lead, *self.grid), value, dtype=array.dtype)
        before, after = self._overlap()
        cropped[after] = array[before]
        return cropped

    def backward(
        self, array: NDArray[Scalar], fill: float = 0.0, *, amounts: bool = False
    ) -> NDArray[Scalar]:
        """Map ``(..., *grid)`` to ``(..., *shape)``; cropped voxels are ``fill``."""
        lead = array.shape[: array.ndim - len(self.grid)]
        whole = np.full((*lead, *self.shape), fill, dtype=array.dtype)
        before, after = self._overlap()
        whole[before] = array[after]
        return whole

    def _overlap(self) -> tuple[Any, Any]:
        before, after = [], []
        for n, first, size in zip(self.shape, self.start, self.grid, strict=True):
            low = min(max(first, 0), n)
            high = max(min(first + size, n), low)
            before.append(slice(low, high))
            after.append(slice(low - first, high - first) if high > low else slice(0, 0))
        return (..., *before), (..., *after)


@dataclass(frozen=True)
class Stretch:
    r"""Resampling of every axis, with the index :math:`i = s \, j + o` of old and new voxels.

    Images are resampled by a linear operator per axis. Maps and outputs are brought back by linear
    interpolation, labels to the nearest voxel, and amounts by the overlap of the voxels' boxes, so
    that their sum is preserved. Positions outside take the nearest voxel.

    Attributes
    ----------
    shape, grid
        The grid before and after.
    scale, offset
        Per axis s and o.
    kind
        ``area`` is the mean over the voxels that a new voxel touches, ``cubic`` a spline.
    zero_outside
        Whether values outside of the image are 0 for ``linear``; otherwise they are the nearest.

    Examples
    --------
    >>> move = Stretch((4,), (2,), (2.0,), (0.5,), "linear")
    >>> move.forward(np.array([0.0, 2.0, 4.0, 6.0])), move.backward(np.array([1.0, 5.0]))
    (array([1., 5.]), array([1., 2., 4., 5.]))
    >>> move.backward(np.array([1.0, 5.0]), amounts=True)
    array([0.5, 0.5, 2.5, 2.5])
    """

    shape: tuple[int, ...]
    grid: tuple[int, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    kind: Interpolation = "linear"
    zero_outside: bool = False
    sources: tuple[tuple[int, ...], ...] | None = None
    """Per axis the old voxel that each new one copies, for ``nearest``."""

    @property
    def matrix(self) -> NDArray[np.float64]:
        """From indices of the new grid to those of the old one, homogeneous."""
        matrix = np.diag([*self.scale, 1.0])
        matrix[:-1, -1] = self.offset
        return matrix

    def forward(self, array: NDArray[Scalar], fill: float = 0.0) -> NDArray[Scalar]:
        """Map ``(..., *shape)`` to ``(..., *grid)``; masks and labels to the nearest voxel."""
        if np.issubdtype(array.dtype, np.floating):
            return _apply(self._operators, array)
        for axis, positions in enumerate(self._positions):
            place = axis - len(self.shape)
            near = np.clip(np.rint(positions), 0, self.shape[axis] - 1).astype(int)
            array = np.take(array, near, axis=place)
        return array

    def backward(
        self, array: NDArray[Scalar], fill: float = 0.0, *, amounts: bool = False
    ) -> NDArray[Scalar]:
        """Map ``(..., *grid)`` to ``(..., *shape)``."""
        if amounts:
            return _apply(self._shares, array)
        inverse = [
            (np.arange(n) - o) / s
            for n, s, o in zip(self.shape, self.scale, self.offset, strict=True)
        ]
        if np.issubdtype(array.dtype, np.floating):
            each = zip(inverse, self.grid, strict=True)
            return _apply([_linear(positions, n) for positions, n in each], array)
        for axis, positions in enumerate(inverse):
            near = np.clip(np.floor(positions + 0.5), 0, self.grid[axis] - 1).astype(int)
            array = np.take(array, near, axis=axis - len(self.shape))
        return array

    @cached_property
    def _positions(self) -> list[NDArray[Any]]:
        return [
            s * np.arange(m) + o for m, s, o in zip(self.grid, self.scale, self.offset, strict=True)
        ]

    @cached_property
    def _operators(self) -> list[csr_array]:
        """Per axis the operator ``(new, old)`` on images."""
        found = []
        for axis, (positions, old) in enumerate(zip(self._positions, self.shape, strict=True)):
            if self.sources is not None:
                found.append(_selection(self.sources[axis], old))
            elif self.kind == "nearest":
                found.append(_selection(np.clip(np.rint(positions), 0, old - 1).astype(int), old))
            elif self.kind == "area":
                found.append(_means(self.grid[axis], old))
            elif self.kind == "cubic":
                found.append(_splines(positions, old))
            else:
                found.append(_linear(positions, old, zero_outside=self.zero_outside))
        return found

    @cached_property
    def _shares(self) -> list[csr_array]:
        """Per axis the share ``(old, new)`` of each new voxel in each old one; columns sum to 1."""
        return [
            _overlaps(positions, s, n)
            for positions, s, n in zip(self._positions, self.scale, self.shape, strict=True)
        ]


Move = Reorientation | Crop | Stretch
"""A spatial step with its inverse."""


def _apply(operators: Sequence[csr_array], array: NDArray[Scalar]) -> NDArray[Scalar]:
    """Apply an operator ``(new, old)`` to each of the last axes."""
    values: NDArray[Any] = array
    for axis, operator in enumerate(operators):
        moved = np.moveaxis(values, axis - len(operators), 0)
        rest = moved.shape[1:]
        flat = operator @ np.ascontiguousarray(moved).reshape(moved.shape[0], -1).astype(np.float64)
        values = np.moveaxis(flat.reshape(-1, *rest), 0, axis - len(operators))
    return np.ascontiguousarray(values, dtype=array.dtype)


def _selection(chosen: Sequence[int] | NDArray[np.int_], old: int) -> csr_array:
    from scipy.sparse import csr_array

    index = np.asarray(chosen)
    return csr_array((np.ones(len(index)), (np.arange(len(index)), index)), (len(index), old))


def _linear(positions: NDArray[Any], old: int, *, zero_outside: bool = False) -> csr_array:
    from scipy.sparse import csr_array

    if not zero_outside:
        positions = np.clip(positions, 0, old - 1)
    low = np.floor(positions).astype(int)
    upper = positions - low
    rows = np.tile(np.arange(len(positions)), 2)
    columns = np.concatenate([low, low + 1])
    weights = np.concatenate([1 - upper, upper])
    inside = (columns >= 0) & (columns < old)
    return csr_array((weights[inside], (rows[inside], columns[inside])), (len(positions), old))


def _means(new: int, old: int) -> csr_array:
    """Return the mean over the old voxels that each of the new ones touches."""
    from scipy.sparse import csr_array

    dense = np.zeros((new, old))
    for row in range(new):
        low, high = row * old // new, -(-(row + 1) * old // new)
        dense[row, low:high] = 1 / (high - low)
    return csr_array(dense)


def _splines(positions: NDArray[Any], old: int) -> csr_array:
    """Return cubic spline interpolation; it is linear, so unit vectors give its matrix."""
    from scipy.ndimage import map_coordinates
    from scipy.sparse import csr_array

    columns = [
        map_coordinates(unit, positions[None], order=_CUBIC, mode="nearest") for unit in np.eye(old)
    ]
    return csr_array(np.stack(columns, axis=1))


def _overlaps(positions: NDArray[Any], scale: float, old: int) -> csr_array:
    """Return the share of each new voxel in each old one; what is outside goes to the edge."""
    from scipy.sparse import csr_array

    edges = np.arange(old + 1) - 0.5
    low = np.clip(positions - scale / 2, -0.5, old - 0.5)
    high = np.clip(positions + scale / 2, -0.5, old - 0.5)
    within = np.clip(np.minimum(edges[1:, None], high) - np.maximum(edges[:-1, None], low), 0, None)
    total = within.sum(axis=0)
    empty = total <= 0
    nearest = np.clip(np.rint(positions), 0, old - 1).astype(int)
    within[nearest[empty], np.flatnonzero(empty)] = 1
    return csr_array(within / within.sum(axis=0))
