"""Which axial slice a 2D network looks at."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError
from neuroxai.data.case import CLASSES, REGIONS, Case, region
from neuroxai.data.placement import Placement


def largest_slice(mask: NDArray[Any], affine: NDArray[np.float64]) -> int:
    """Return the index, from the feet, of the axial slice with the largest area of the mask.

    Parameters
    ----------
    mask
        ``(I, J, K)``, nonzero inside.
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
    area = Placement.fit(mask.shape, affine).turn(mask != 0).sum(axis=(0, 1))
    if not area.any():
        raise CaseError("there is no tumor to choose a slice by; name the slice instead")
    return int(area.argmax())


def tumor_slices(case: Case, count: int) -> list[int]:
    """Return up to ``count`` axial slices through the tumor, counted from the feet.

    The largest comes first, then others spread evenly over those nearly as large: at a tumor's
    ends its core is out of sight, and with it what tells the grade. None where there is no tumor.

    Raises
    ------
    CaseError
        If the case has no truth.
    """
    if case.truth is None:
        raise CaseError(f"{case.name}: has no truth to choose slices through the tumor by")
    areas = Placement.fit(case.shape, case.affine).turn(region(case.truth, "WT")).sum(axis=(0, 1))
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
    """Return the axial slice to look at, counted from the feet.

    Parameters
    ----------
    slice_index
        The slice itself, ``truth`` for the largest tumor in the truth, or None for the largest in
        ``mask``, else in the truth.
    mask
        ``(I, J, K)`` on the case's grid.
    brain
        ``(X, Y, Z)``, turned to RAS+.

    Raises
    ------
    CaseError
        If there is nothing to choose by, or the slice holds no brain.
    """
    if slice_index in (None, 0) and brain.shape[2] == 1:
        return 0
    if slice_index is None and mask is not None:
        if mask.shape != case.shape:
            raise CaseError(
                f"{case.name}: the mask has the shape {mask.shape}, the case {case.shape}; "
                "give a mask on the case's own grid"
            )
        return largest_slice(mask, case.affine)
    if slice_index is None or slice_index == "truth":
        if case.truth is None:
            raise CaseError(
                f"{case.name}: the network sees one axial slice and the case has no truth to "
                f"choose it by; name a slice from 0 to {brain.shape[2] - 1}, "
                "or give a tumor mask"
            )
        tumor = np.isin(case.truth, [CLASSES.index(name) for name in REGIONS["WT"]])
        if not tumor.any():
            raise CaseError(
                f"{case.name}: the truth holds no tumor to choose a slice by; name a slice "
                f"from 0 to {brain.shape[2] - 1}"
            )
        return largest_slice(tumor, case.affine)
    if not isinstance(slice_index, int | np.integer) or isinstance(slice_index, bool):
        raise CaseError(f"{case.name}: the slice is {slice_index!r}, expected a number")
    held = np.flatnonzero(brain.any(axis=(0, 1)))
    if slice_index not in held:
        raise CaseError(
            f"{case.name}: axial slice {slice_index} holds no brain, "
            f"slices {held[0]} to {held[-1]} do"
        )
    return int(slice_index)
