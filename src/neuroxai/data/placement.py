"""Mapping between the patient's grid and the network's grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError
from neuroxai.data.moves import Crop, Move, Stretch
from neuroxai.data.resampling import Resampling

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Placement:
    """Position of the network's grid in the patient's grid.

    The mapping reorients the image to the network's axes (by default RAS+: X to the patient's
    right, Y to the front, Z to the head), selects an axial slice for a 2D network, and crops or
    pads each axis. These steps are inverted exactly. If the network requires another voxel size,
    the cropped image is resampled, which is not.

    Attributes
    ----------
    shape
        Shape of the patient's grid ``(I, J, K)``.
    affine
        ``(4, 4)``, from voxel indices of the patient's grid to mm in RAS+ world space.
    axes
        Axis of the patient's grid for each of X, Y, Z.
    flips
        Whether each of X, Y, Z is flipped.
    start
        Index of the first voxel per axis of the reoriented image; negative if padded.
    size
        Size of the crop in the patient's voxels: three numbers, or two for an axial slice.
    slice_index
        Index of the axial slice along Z of the reoriented image, None in 3D.
    resampling
        Resampling of the crop, None if the voxel size is the same.
    further
        Moves after these, in order.

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
    further: tuple[Move, ...] = ()

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
        """Build a placement from the patient's grid.

        Parameters
        ----------
        shape, affine
            The patient's grid.
        start, size
            First voxel and size of the crop on the reoriented image; by default all of it.
        slice_index
            Index of the axial slice, None in 3D.
        orientation
            Directions of the axes, for example ``RAS`` or ``LPS``; None keeps the stored axes.
        order
            Order of these axes in the network's input; ``(2, 1, 0)`` is z, y, x.

        Raises
        ------
        CaseError
            If the affine is singular or the slice does not exist.
        """
        i, j, k = (int(n) for n in shape)
        axes, flips = _orientation(np.asarray(affine, dtype=np.float64), orientation)
        first, second, third = order
        axes = axes[first], axes[second], axes[third]
        flips = flips[first], flips[second], flips[third]
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
        """Shape of the network's grid ``*S``."""
        if self.further:
            return self.further[-1].grid
        return self.size if self.resampling is None else self.resampling.grid

    @property
    def resampled(self) -> bool:
        """Whether the network's voxels differ from the patient's."""
        return self.resampling is not None or any(
            isinstance(move, Stretch) for move in self.further
        )

    @property
    def reoriented_shape(self) -> tuple[int, int, int]:
        """Shape of the reoriented image ``(X, Y, Z)``."""
        x, y, z = (self.shape[axis] for axis in self.axes)
        return x, y, z

    @property
    def reoriented_affine(self) -> NDArray[np.float64]:
        """``(4, 4)``, from voxel indices of the reoriented image to mm in RAS+ world space."""
        to_patient = np.zeros((4, 4))
        to_patient[3, 3] = 1
        for ras, (axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            to_patient[axis, ras] = -1 if flip else 1
            to_patient[axis, 3] = self.shape[axis] - 1 if flip else 0
        return self.affine @ to_patient

    @property
    def network_affine(self) -> NDArray[np.float64]:
        """``(4, 4)``, from indices ``(x, y, z)`` on the network's grid to mm; z is 0 in 2D."""
        shift = np.eye(4)
        shift[: len(self.start), 3] = self.start
        if self.slice_index is not None:
            shift[2, 3] = self.slice_index
        if self.resampling is not None:
            stretch = np.eye(4)
            for axis, (old, new) in enumerate(zip(self.size, self.resampling.grid, strict=True)):
                stretch[axis, axis] = old / new
                stretch[axis, 3] = (old / new - 1) / 2
            shift = shift @ stretch
        for move in self.further:
            shift = shift @ move.matrix
        return self.reoriented_affine @ shift

    @property
    def left_right_axis(self) -> int | None:
        """Axis of the network's grid closest to the patient's left-right axis.

        None if it is perpendicular to the slice.
        """
        import nibabel as nib

        of_axis = nib.orientations.io_orientation(self.network_affine)[:, 0].tolist()
        axis = of_axis.index(0)
        return axis if axis < len(self.size) else None

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel edges of the patient's grid in mm, along the network's axes."""
        columns = np.linalg.norm(self.reoriented_affine[:3, :3], axis=0)
        return tuple(float(mm) for mm in columns[: len(self.size)])

    @property
    def padded(self) -> bool:
        """Whether part of the network's grid is outside the patient's image."""
        ends = zip(self.start, self.size, self.reoriented_shape, strict=False)
        return any(first < 0 or first + size > n for first, size, n in ends) or any(
            isinstance(move, Crop) and move.pads for move in self.further
        )

    @property
    def upright(self) -> Placement:
        """Placement of the whole patient's grid in RAS+, for figures."""
        return Placement.fit(self.shape, self.affine)

    def reorient(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """Reorient ``(..., I, J, K)`` to the network's axes ``(..., X, Y, Z)``, C-contiguous.

        Raises
        ------
        CaseError
            If the array is not on the patient's grid.
        """
        if array.shape[-3:] != self.shape:
            raise CaseError(f"array of shape {array.shape}, expected the grid {self.shape}")
        lead = array.ndim - 3
        order = (*range(lead), *(lead + axis for axis in self.axes))
        return np.ascontiguousarray(array.transpose(order)[self._steps()])

    def restore_orientation(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """Reorient ``(..., X, Y, Z)`` back to the patient's axes ``(..., I, J, K)``.

        Raises
        ------
        CaseError
            If the array does not have the shape of the reoriented image.
        """
        if array.shape[-3:] != self.reoriented_shape:
            raise CaseError(
                f"array of shape {array.shape}, expected the grid {self.reoriented_shape}"
            )
        lead = array.ndim - 3
        order = (*range(lead), *(lead + self.axes.index(axis) for axis in range(3)))
        return np.ascontiguousarray(array[self._steps()].transpose(order))

    def to_network(self, volume: NDArray[Scalar], fill: float = 0.0) -> NDArray[Scalar]:
        """Map ``(..., I, J, K)`` to the network's grid ``(..., *S)``; padding is ``fill``.

        Raises
        ------
        CaseError
            If the volume is not on the patient's grid.
        """
        image = self.reorient(volume)
        return self.reoriented_to_network(
            image if self.slice_index is None else image[..., self.slice_index], fill
        )

    def reoriented_to_network(self, image: NDArray[Scalar], fill: float = 0.0) -> NDArray[Scalar]:
        """Map a reoriented image ``(..., X, Y, Z)``, or its slice, to the network's grid."""
        cropped = self.crop_or_pad(image, fill)
        placed = cropped if self.resampling is None else self.resampling.to_grid(cropped)
        for move in self.further:
            placed = move.forward(placed, fill)
        return placed

    def crop_or_pad(self, image: NDArray[Scalar], fill: float = 0.0) -> NDArray[Scalar]:
        """Crop or pad a reoriented image or slice, in the patient's voxels."""
        lead = image.shape[: image.ndim - len(self.size)]
        cropped: NDArray[Scalar] = np.full((*lead, *self.size), fill, dtype=image.dtype)
        in_image, in_crop = self._overlap()
        cropped[in_crop] = image[in_image]
        return cropped

    def to_patient(
        self, array: NDArray[Scalar], fill: float = 0.0, *, amounts: bool = False
    ) -> NDArray[Scalar]:
        """Map ``(..., *S)`` to the patient's grid ``(..., I, J, K)``; cropped voxels are ``fill``.

        Values are interpolated if the voxel size differs. With ``amounts``, each value is an amount
        per voxel and is distributed, so that the sum is preserved but for the padding.

        Raises
        ------
        CaseError
            If the array is not on the network's grid.
        """
        dimension = len(self.size)
        if array.shape[-dimension:] != self.grid:
            raise CaseError(
                f"array of shape {array.shape}, expected the network's grid {self.grid}"
            )
        for move in reversed(self.further):
            array = move.backward(array, fill, amounts=amounts)
        if self.resampling is not None:
            resample = self.resampling.distribute if amounts else self.resampling.to_shape
            array = resample(array)
        whole = np.full(
            (*array.shape[:-dimension], *self.reoriented_shape), fill, dtype=array.dtype
        )
        in_image, in_crop = self._overlap()
        plane: NDArray[Scalar] = whole if self.slice_index is None else whole[..., self.slice_index]
        plane[in_image] = array[in_crop]
        return self.restore_orientation(whole)

    def describe(self) -> dict[str, Any]:
        """Return the placement as plain numbers and lists, for a JSON sidecar."""
        return {
            "patient_shape": list(self.shape),
            "patient_affine": self.affine.tolist(),
            "axes_from": list(self.axes),
            "axes_flipped": list(self.flips),
            "network_start": list(self.start),
            "network_size": list(self.size),
            "axial_slice": self.slice_index,
            **({} if self.resampling is None else {"resampled_to": list(self.resampling.grid)}),
            **({"moves": [_describe(move) for move in self.further]} if self.further else {}),
        }

    def _steps(self) -> Any:
        return (..., *(slice(None, None, -1 if flip else 1) for flip in self.flips))

    def _overlap(self) -> tuple[Any, Any]:
        """Return the overlap of image and crop, as indices into each."""
        in_image, in_crop = [], []
        for n, first, s in zip(self.reoriented_shape, self.start, self.size, strict=False):
            low = min(max(first, 0), n)
            high = max(min(first + s, n), low)
            in_image.append(slice(low, high))
            in_crop.append(slice(low - first, high - first) if high > low else slice(0, 0))
        return (..., *in_image), (..., *in_crop)


def _describe(move: Move) -> dict[str, Any]:
    """Return a move in words, with the matrix from indices after it to indices before it."""
    return {
        "move": type(move).__name__.lower(),
        "shape": list(move.shape),
        "grid": list(move.grid),
        "matrix": move.matrix.tolist(),
    }


def crop_start(length: int, size: int, low: int, high: int) -> int:
    """Return the start of a crop of ``size`` voxels on an axis of ``length`` voxels.

    The crop is centered on the image and moved as little as necessary to contain ``[low, high)``.
    If the interval is longer than the crop, the crop is centered on it. The start is negative if
    the axis is padded.

    Examples
    --------
    >>> crop_start(240, 192, 60, 180), crop_start(240, 192, 10, 180), crop_start(155, 160, 0, 155)
    (24, 10, -2)
    """
    if size >= length:
        # As in MONAI, an odd voxel of padding goes to the end.
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
        raise CaseError("the affine is singular or not finite, so voxels have no position in space")
    if orientation is None:
        return (0, 1, 2), (False, False, False)
    ornt = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(orientation))
    )
    of_axis = [int(world) for world in ornt[:, 0]]
    x, y, z = (of_axis.index(world) for world in range(3))
    return (x, y, z), (bool(ornt[x, 1] < 0), bool(ornt[y, 1] < 0), bool(ornt[z, 1] < 0))
