"""The grid of a case, and files read onto it: reoriented, or resampled on request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError
from neuroxai.data.grid import reorient_to
from neuroxai.data.itk_image import load_itk
from neuroxai.data.nifti import Volume


@dataclass(frozen=True, eq=False)
class Placed:
    """A volume on the grid of a case.

    Attributes
    ----------
    data
        ``(I, J, K)``, of the type of the volume.
    note
        What was interpolated, as one sentence; None if every voxel has a value of the file.
    """

    data: NDArray[Any]
    note: str | None = None


@dataclass(frozen=True, eq=False)
class CaseGrid:
    """Grid that the files of a case are read onto.

    Attributes
    ----------
    shape
        Grid size ``(I, J, K)``.
    affine
        ``(4, 4)``, voxel index to millimeters in RAS+ world space.
    path
        File that has this grid.
    modality
        Modality of that file, if files on other grids are resampled to it; None to refuse them.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    path: str
    modality: str | None = None

    def place(self, volume: Volume[Any]) -> Placed:
        """Return a volume on this grid: images linearly, labels with the nearest neighbor.

        A volume whose voxel centers coincide with those of the grid is only reoriented, by flips
        and axis permutations. Positions outside of the volume become 0.

        Raises
        ------
        CaseError
            If the volume is on another grid and no modality is set, or does not overlap the grid.
        MissingExtraError
            If a volume must be resampled and SimpleITK is not installed.

        Examples
        --------
        >>> def volume(data, affine):
        ...     return Volume(np.float32(data), affine, "", "flair.nii")
        >>> grid = CaseGrid((2, 1, 1), np.eye(4), "t1.nii", "T1")
        >>> placed = grid.place(volume([[[0]], [[2]], [[4]]], np.diag([0.5, 1, 1, 1])))
        >>> placed.data.ravel().tolist(), placed.note
        ([0.0, 4.0], 'flair.nii: was resampled to the grid of T1 (SimpleITK, linear)')
        """
        try:
            pair = (self.path, volume.path)
            data = reorient_to(self.shape, self.affine, volume.data, volume.affine, pair)
        except CaseError:
            if self.modality is None:
                raise
            return self._resampled(volume)
        # torch cannot use negative strides; arrays that were not flipped are not copied.
        return Placed(np.asfortranarray(data))

    def _resampled(self, volume: Volume[Any]) -> Placed:
        """Interpolate at the voxel centers of the grid."""
        itk = load_itk("Resampling to the grid of another file", "itk")
        labels = np.issubdtype(volume.data.dtype, np.integer)
        # In voxel indices, without LPS: the transform carries both affines, also sheared ones.
        image = itk.GetImageFromArray(np.ascontiguousarray(volume.data.T))
        to_file = np.linalg.solve(volume.affine, self.affine)
        transform = itk.AffineTransform(3)
        transform.SetMatrix(to_file[:3, :3].ravel().tolist())
        transform.SetTranslation(to_file[:3, 3].tolist())
        method = itk.sitkNearestNeighbor if labels else itk.sitkLinear
        missing = int(np.iinfo(np.int32).min) if labels else float(np.finfo(np.float32).min)
        size = [int(n) for n in self.shape]
        resampled = itk.Resample(
            image, size, transform, method, [0.0] * 3, [1.0] * 3, np.eye(3).ravel().tolist(),
            missing,
        )  # fmt: skip
        data = np.asfortranarray(itk.GetArrayFromImage(resampled).T)
        outside = data == missing
        share = float(outside.mean())
        if share == 1:
            raise CaseError(
                f"{volume.path}: does not overlap {self.path}, expected scans of one head in one "
                "space; register it first, or correct the wrong affine"
            )
        data[outside] = 0
        name = "nearest neighbor" if labels else "linear"
        note = f"{volume.path}: was resampled to the grid of {self.modality} (SimpleITK, {name})"
        if share >= _WORTH_SAYING:
            note += f"; {share:.1%} of that grid is outside of this file, and 0"
        return Placed(data, note)


_WORTH_SAYING = 0.001
"""Share of missing voxels that is named: a corner of a tenth along each axis."""
