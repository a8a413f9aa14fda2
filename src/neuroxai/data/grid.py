"""Comparison of image grids in world space, and reorientation from one to the other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError

GRID_TOLERANCE = 0.05
"""Largest difference along an axis between voxel centers of one grid, as a fraction of a voxel.
Headers store rounded affines; a shift of 0.05 voxels changes an interpolated value by about as
much as noise does."""


def corner_distance(
    one: NDArray[np.float64], other: NDArray[np.float64], shape: Sequence[int]
) -> float:
    """Return the largest distance in mm between the corners of a grid under two affines.

    Examples
    --------
    >>> shifted = np.eye(4)
    >>> shifted[0, 3] = 2.5
    >>> corner_distance(np.eye(4), shifted, (4, 5, 6))
    2.5
    """
    corners = np.array([(*c, 1) for c in itertools.product(*((0, n - 1) for n in shape))])
    return float(np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max())


def voxel_distance(
    one: NDArray[np.float64], other: NDArray[np.float64], shape: Sequence[int]
) -> float:
    """Return the largest difference along an axis between corresponding voxel centers.

    Unlike :func:`corner_distance`, in voxels of the first grid.

    Examples
    --------
    >>> shifted = np.diag([1.0, 1.0, 5.0, 1.0])
    >>> shifted[2, 3] = 0.5
    >>> voxel_distance(np.diag([1.0, 1.0, 5.0, 1.0]), shifted, (4, 5, 6))
    0.1
    """
    corners = np.array([(*c, 1) for c in itertools.product(*((0, n - 1) for n in shape))])
    moved = np.linalg.solve(one, other) - np.eye(4)
    return float(np.abs((corners @ moved.T)[:, :3]).max())


_OBLIQUE = 15.0
"""Obliquity in degrees above which a scan is reported; smaller angles are usual head tilt."""


def obliquity(affine: NDArray[np.float64]) -> float:
    """Return the largest angle in degrees between a scan axis and the nearest body axis.

    Angles up to 15 degrees, which are usual head tilt, are returned as zero.

    Examples
    --------
    >>> obliquity(np.diag([-1.0, 2.0, 3.0, 1.0]))
    0.0
    >>> turned = np.array([[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    >>> round(obliquity(turned), 1)
    36.9
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    nearest = np.abs(axes).max(axis=0)
    angle = float(np.degrees(np.arccos(np.clip(nearest.min(), 0, 1))))
    return angle if angle > _OBLIQUE else 0.0


def reorient_to(
    shape: Sequence[int],
    target: NDArray[np.float64],
    data: NDArray[Any],
    affine: NDArray[np.float64],
    names: tuple[str, str],
) -> NDArray[Any]:
    """Reorient a volume to a given grid by flips and axis permutations, as a view.

    Parameters
    ----------
    shape, target
        Size and affine (mm) of the grid.
    data, affine
        Volume ``(I, J, K)`` and its affine.
    names
        Paths of the files that define the grid and the volume, for the error message.

    Raises
    ------
    CaseError
        If the volume is not on that grid within :data:`GRID_TOLERANCE`.

    Examples
    --------
    >>> mirrored = np.array([[-1.0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    >>> data = np.arange(2).reshape(2, 1, 1)
    >>> reorient_to((2, 1, 1), np.eye(4), data, mirrored, ("a.nii", "b.nii")).ravel().tolist()
    [1, 0]
    """
    grid_file, file = names
    signs = np.rint(np.linalg.solve(target, affine)[:3, :3]).astype(int)
    back = np.eye(4)
    if (abs(signs).sum(0) == 1).all() and (abs(signs).sum(1) == 1).all():
        axes = [int(abs(row).argmax()) for row in signs]
        flips = [bool(row.sum() < 0) for row in signs]
        back[:3] = 0
        for new, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
            back[axis, new] = -1 if flip else 1
            back[axis, 3] = data.shape[axis] - 1 if flip else 0
        data = data.transpose(axes)[tuple(slice(None, None, -1 if f else 1) for f in flips)]
    if data.shape != tuple(shape):
        raise CaseError(
            f"{file}: grid of {data.shape} voxels, but {grid_file} has {tuple(shape)}; "
            "register and resample both to one grid"
        )
    found = affine @ back
    gap = voxel_distance(target, found, shape)
    if gap < GRID_TOLERANCE or _same_after_rounding(target, found, shape):
        return data
    raise CaseError(
        f"{file}: voxel centers differ from {grid_file} by up to "
        f"{corner_distance(target, found, shape):.4g} mm, {gap:.3g} of a voxel, expected less than "
        f"{GRID_TOLERANCE:g} of a voxel; register and resample both to one grid, or correct the "
        "wrong affine"
    )


def _same_after_rounding(
    one: NDArray[np.float64], other: NDArray[np.float64], shape: Sequence[int]
) -> bool:
    """Return whether two affines differ only by the rounding of a qform.

    A qform stores three components of a quaternion in float32 and derives the fourth, which loses
    rotations below 0.06 degrees from a scan in LPS: up to 0.3 mm at the edge of the image.
    """
    pairs = ((one, other), (other, one))
    return any(voxel_distance(b, _as_qform(a), shape) < GRID_TOLERANCE for a, b in pairs)


def _as_qform(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an affine as it is read back from the qform of a NIfTI-1 header."""
    from nibabel.nifti1 import Nifti1Header

    header = Nifti1Header()
    header.set_qform(affine, code=1)
    stored: NDArray[np.float64] = np.asarray(header.get_qform(), dtype=np.float64)
    return stored
