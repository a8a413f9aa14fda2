"""The way between the patient's grid and the network's, and back, voxel for voxel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError
from neuroxai.data.resampling import Resampling

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the network's grid lies in the patient's.

    Three exact steps: axes permuted and flipped to the network's orientation and order (RAS+
    unless it was trained otherwise: X to the patient's right, Y to the front, Z to the head), one
    axial slice taken for a 2D network, and a crop or pad per axis. The way back is exact, unless
    the network needs voxels of another size, for which what was cut is resampled at the end.

    Attributes
    ----------
    shape
        The patient's grid ``(I, J, K)``.
    affine
        ``(4, 4)``, the patient's voxel index to mm in RAS+ world space.
    axes
        For X, Y, Z the patient's axis it is taken from.
    flips
        For X, Y, Z whether it runs against that axis.
    start
        Per network axis the turned index of its first voxel; negative where padding comes first.
    size
        What is cut, in the patient's voxels: three numbers, or two for an axial slice.
    slice_index
        The axial slice's index along Z, counted in RAS+, or None in 3D.
    resampling
        From what was cut to the network's grid, or None where they are the same.

    Examples
    --------
    >>> lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    >>> placement = Placement.fit((3, 4, 5), lps, start=(-1, 0, 0), size=(4, 4, 4))
    >>> scan = np.arange(60.0).reshape(3, 4, 5)
    >>> x = placement.to_network(scan)
    >>> x.shape, bool(x[1, 0, 0] == scan[2, 3, 0])
    ((4, 4, 4), True)
    >>> bool((placement.to_patient(x)[..., :4] == scan[..., :4]).all())
    True
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    start: tuple[int, ...]
    size: tuple[int, ...]
    slice_index: int | None = None
    resampling: Resampling | None = None

    @classmethod
    def fit(
        cls,
        shape: Sequence[int],
        affine: NDArray[Any],
        start: Sequence[int] | None = None,
        size: Sequence[int] | None = None,
        slice_index: int | None = None,
        orientation: str | None = "RAS",
        order: Sequence[int] = (0, 1, 2),
    ) -> Placement:
        """Turn a grid and crop or pad it to ``size`` from ``start`` (default: as it is).

        Parameters
        ----------
        orientation
            Where the axes point, as ``RAS`` or ``LPS``; None leaves them as stored.
        order
            Which of the turned axes is the network's first, second and third; ``(2, 1, 0)`` for a
            network that works in z, y, x.

        Raises
        ------
        CaseError
            If the affine is singular or the slice lies outside.
        """
        i, j, k = (int(n) for n in shape)
        turned, turned_flips = _orientation(np.asarray(affine, dtype=np.float64), orientation)
        first, second, third = order
        axes = turned[first], turned[second], turned[third]
        flips = turned_flips[first], turned_flips[second], turned_flips[third]
        whole = tuple((i, j, k)[axis] for axis in axes)
        if slice_index is not None:
            if not 0 <= slice_index < whole[2]:
                raise CaseError(
                    f"axial slice {slice_index} does not exist, expected 0 to {whole[2] - 1} "
                    "(counted from the feet)"
                )
            whole = whole[:2]
        return cls(
            shape=(i, j, k),
            affine=np.array(affine, dtype=np.float64),
            axes=axes,
            flips=flips,
            start=tuple(int(n) for n in start) if start is not None else (0,) * len(whole),
            size=tuple(int(n) for n in size) if size is not None else whole,
            slice_index=None if slice_index is None else int(slice_index),
        )

    @property
    def grid(self) -> tuple[int, ...]:
        """The network's grid ``*S``."""
        return self.size if self.resampling is None else self.resampling.grid

    @property
    def turned_shape(self) -> tuple[int, int, int]:
        """The patient's grid, turned: ``(X, Y, Z)``."""
        x, y, z = (self.shape[axis] for axis in self.axes)
        return x, y, z

    @property
    def turned_affine(self) -> NDArray[np.float64]:
        """``(4, 4)``, index in the turned volume to mm in the same world space."""
        turn = np.zeros((4, 4))
        turn[3, 3] = 1
        for ras, (axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            turn[axis, ras] = -1 if flip else 1
            turn[axis, 3] = self.shape[axis] - 1 if flip else 0
        return self.affine @ turn

    @property
    def network_affine(self) -> NDArray[np.float64]:
        """``(4, 4)``, index ``(x, y, z)`` on the network's grid to mm; z is 0 in 2D."""
        shift = np.eye(4)
        shift[: len(self.start), 3] = self.start
        if self.slice_index is not None:
            shift[2, 3] = self.slice_index
        if self.resampling is not None:
            stretch = np.eye(4)
            for axis, (old, new) in enumerate(zip(self.size, self.grid, strict=True)):
                stretch[axis, axis] = old / new
                stretch[axis, 3] = (old / new - 1) / 2
            shift = shift @ stretch
        return self.turned_affine @ shift

    @property
    def spacing(self) -> tuple[float, ...]:
        """The patient's voxel edges in mm along the network's axes."""
        columns = np.linalg.norm(self.turned_affine[:3, :3], axis=0)
        return tuple(float(mm) for mm in columns[: len(self.size)])

    @property
    def upright(self) -> Placement:
        """The same patient's grid, only turned to RAS+: what is drawn, whatever the network saw."""
        return Placement.fit(self.shape, self.affine)

    def turn(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """Turn ``(..., I, J, K)`` to the orientation, ``(..., X, Y, Z)``, C-contiguous.

        Raises
        ------
        CaseError
            If the array does not lie on the patient's grid.
        """
        if array.shape[-3:] != self.shape:
            raise CaseError(f"an array of shape {array.shape} is not on the grid {self.shape}")
        lead = array.ndim - 3
        order = (*range(lead), *(lead + axis for axis in self.axes))
        return np.ascontiguousarray(array.transpose(order)[self._steps()])

    def turn_back(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """Turn ``(..., X, Y, Z)`` back to the patient's ``(..., I, J, K)``.

        Raises
        ------
        CaseError
            If the array does not lie on the turned grid.
        """
        if array.shape[-3:] != self.turned_shape:
            raise CaseError(
                f"an array of shape {array.shape} is not on the grid {self.turned_shape}"
            )
        lead = array.ndim - 3
        order = (*range(lead), *(lead + self.axes.index(axis) for axis in range(3)))
        return np.ascontiguousarray(array[self._steps()].transpose(order))

    def to_network(self, volume: NDArray[Scalar], fill: float = 0.0) -> NDArray[Scalar]:
        """Bring ``(..., I, J, K)`` to the network's ``(..., *S)``; ``fill`` goes where it pads.

        Raises
        ------
        CaseError
            If the volume does not lie on the patient's grid.
        """
        turned = self.turn(volume)
        return self.crop(
            turned if self.slice_index is None else turned[..., self.slice_index], fill
        )

    def crop(self, turned: NDArray[Scalar], fill: float = 0.0) -> NDArray[Scalar]:
        """Bring what is turned already, ``(..., X, Y, Z)`` or a slice of it, to the network's."""
        found = self.cut(turned, fill)
        return found if self.resampling is None else self.resampling.to_grid(found)

    def cut(self, turned: NDArray[Scalar], fill: float = 0.0) -> NDArray[Scalar]:
        """Crop or pad what is turned already, in the patient's own voxels."""
        lead = turned.shape[: turned.ndim - len(self.size)]
        found: NDArray[Scalar] = np.full((*lead, *self.size), fill, dtype=turned.dtype)
        inside, taken = self._overlap()
        found[taken] = turned[inside]
        return found

    def to_patient(self, array: NDArray[Scalar], fill: float = 0.0) -> NDArray[Scalar]:
        """Lay ``(..., *S)`` on the patient's grid ``(..., I, J, K)``; ``fill`` where it was cut.

        Raises
        ------
        CaseError
            If the array does not lie on the network's grid.
        """
        dimension = len(self.size)
        if array.shape[-dimension:] != self.grid:
            raise CaseError(
                f"an array of shape {array.shape} is not on the network's grid {self.grid}"
            )
        if self.resampling is not None:
            array = self.resampling.to_shape(array)
        whole = np.full((*array.shape[:-dimension], *self.turned_shape), fill, dtype=array.dtype)
        inside, taken = self._overlap()
        plane: NDArray[Scalar] = whole if self.slice_index is None else whole[..., self.slice_index]
        plane[inside] = array[taken]
        return self.turn_back(whole)

    def describe(self) -> dict[str, Any]:
        """Return all of it as plain numbers and lists, for a JSON sidecar."""
        return {
            "patient_shape": list(self.shape),
            "patient_affine": self.affine.tolist(),
            "axes_from": list(self.axes),
            "axes_flipped": list(self.flips),
            "network_start": list(self.start),
            "network_size": list(self.size),
            "axial_slice": self.slice_index,
            **({} if self.resampling is None else {"resampled_to": list(self.grid)}),
        }

    def _steps(self) -> Any:
        return (..., *(slice(None, None, -1 if flip else 1) for flip in self.flips))

    def _overlap(self) -> tuple[Any, Any]:
        """Return what both grids share, as indices into the turned volume and the network's."""
        inside, taken = [], []
        for n, first, s in zip(self.turned_shape, self.start, self.size, strict=False):
            low = min(max(first, 0), n)
            high = max(min(first + s, n), low)
            inside.append(slice(low, high))
            taken.append(slice(low - first, high - first) if high > low else slice(0, 0))
        return (..., *inside), (..., *taken)


def crop_start(length: int, size: int, low: int, high: int) -> int:
    """Return where ``size`` voxels start on an axis of ``length``, to hold ``[low, high)``.

    Centered on the image, moved as little as needed to keep the interval inside; centered on the
    interval if that is too long; negative where the axis is padded.

    Examples
    --------
    >>> crop_start(240, 192, 60, 180), crop_start(240, 192, 10, 180), crop_start(155, 160, 0, 155)
    (24, 10, -2)
    """
    if size >= length:
        # As MONAI pads: what is odd goes to the end.
        return -((size - length) // 2)
    start = (length - size) // 2
    if high - low > size:
        return min(max((low + high - size) // 2, 0), length - size)
    return min(max(start, high - size), low)


def _orientation(
    affine: NDArray[np.float64], orientation: str | None
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    import nibabel as nib

    if (
        affine.shape != (4, 4)
        or not np.isfinite(affine).all()
        or np.linalg.matrix_rank(affine[:3, :3]) < 3
    ):
        raise CaseError("the affine is singular or not finite, so voxels have no place in the body")
    if orientation is None:
        return (0, 1, 2), (False, False, False)
    ornt = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(orientation))
    )
    of_axis = [int(world) for world in ornt[:, 0]]
    x, y, z = (of_axis.index(world) for world in range(3))
    return (x, y, z), (bool(ornt[x, 1] < 0), bool(ornt[y, 1] < 0), bool(ornt[z, 1] < 0))
