"""Selection of axial slices for 2D networks."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError
from neuroxai.data.case import CLASSES, REGIONS, Case, region
from neuroxai.data.placement import Placement


def largest_slice(mask: NDArray[Any], affine: NDArray[np.float64]) -> int:
    """Return the axial slice with the largest area of a mask, counted from the feet.

    Parameters
    ----------
    mask
        ``(I, J, K)``, nonzero in the region.
    affine
        ``(4, 4)``, the mask's voxel index to mm in RAS+ world space.

    Raises
    ------
    CaseError
        If the mask is empty.

    Examples
    --------
    >>> mask = np.zeros((3, 4, 5))
    >>> mask[1, 1:3, 3] = 1
    >>> largest_slice(mask, np.eye(4)), largest_slice(mask, np.diag([1.0, 1, -1, 1]))
    (3, 1)
    """
    area = Placement.fit(mask.shape, affine).reorient(mask != 0).sum(axis=(0, 1))
    if not area.any():
        raise CaseError("no slice can be selected: the mask is empty; give the slice index")
    return int(area.argmax())


def tumor_slices(case: Case, count: int) -> list[int]:
    """Return up to ``count`` axial slices through the tumor, counted from the feet.

    The slice with the largest tumor area comes first. The others are spread evenly over the
    slices with at least 70 % of that area, because slices near the ends of the tumor miss its
    core, which carries the grade. The list is empty without a tumor.

    Raises
    ------
    CaseError
        If the case has no ground truth.
    """
    if case.truth is None:
        raise CaseError(
            f"{case.name}: slices through the tumor need a ground-truth segmentation, which the "
            "case does not have"
        )
    areas = (
        Placement.fit(case.shape, case.affine).reorient(region(case.truth, "WT")).sum(axis=(0, 1))
    )
    if not areas.any():
        return []
    large = np.flatnonzero(areas >= 0.7 * areas.max())
    spread = large[np.linspace(0, len(large) - 1, min(count, len(large))).astype(int)]
    return list(dict.fromkeys([int(areas.argmax()), *(int(z) for z in spread)]))[:count]


def choose_slice(
    case: Case,
    slice_index: int | Literal["truth"] | None,
    mask: NDArray[Any] | None,
    brain: NDArray[np.bool_],
) -> int:
    """Return the axial slice for a 2D network, counted from the feet.

    Parameters
    ----------
    slice_index
        Index of the slice; ``truth`` for the slice with the largest tumor area in the ground
        truth; None for the slice with the largest area in ``mask`` if given, otherwise ``truth``.
    mask
        ``(I, J, K)`` on the grid of the case.
    brain
        ``(X, Y, Z)``, in RAS+ orientation.

    Raises
    ------
    CaseError
        If no slice can be selected, or the slice contains no brain.
    """
    if slice_index in (None, 0) and brain.shape[2] == 1:
        return 0
    if slice_index is None and mask is not None:
        if mask.shape != case.shape:
            raise CaseError(
                f"{case.name}: the mask has the shape {mask.shape}, expected {case.shape} as the "
                "case; resample it to the grid of the case"
            )
        return largest_slice(mask, case.affine)
    if slice_index is None or slice_index == "truth":
        if case.truth is None:
            raise CaseError(
                f"{case.name}: the network takes one axial slice, and without a ground truth none "
                f"can be selected; give a slice from 0 to {brain.shape[2] - 1} or a tumor mask"
            )
        tumor = np.isin(case.truth, [CLASSES.index(name) for name in REGIONS["WT"]])
        if not tumor.any():
            raise CaseError(
                f"{case.name}: the ground truth contains no tumor, so no slice can be selected; "
                f"give a slice from 0 to {brain.shape[2] - 1}"
            )
        return largest_slice(tumor, case.affine)
    if not isinstance(slice_index, int | np.integer) or isinstance(slice_index, bool):
        raise CaseError(f"{case.name}: invalid slice {slice_index!r}, expected an integer")
    occupied = np.flatnonzero(brain.any(axis=(0, 1)))
    if slice_index not in occupied:
        raise CaseError(
            f"{case.name}: axial slice {slice_index} contains no brain; "
            f"choose a slice from {occupied[0]} to {occupied[-1]}"
        )
    return int(slice_index)
