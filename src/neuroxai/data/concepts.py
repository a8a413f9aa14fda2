"""Concept masks for network dissection, on the grid of the case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.box import bounding_box
from neuroxai.core.errors import CaseError
from neuroxai.data.case import CLASSES, REGIONS, Case, region
from neuroxai.data.tissues import TISSUES

Mask = NDArray[np.bool_]

_ROUNDING = 1e-9
"""Tolerance in mm, so that voxels at exactly the given distance are included."""

BOUNDARY_MM = 2.0
"""Half thickness in mm of the tumor boundary: two voxels of a BraTS scan."""


def concept_masks(
    case: Case,
    *,
    tissues: NDArray[Any] | None = None,
    user_masks: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, Mask]:
    """Return all available concept masks of a case, each ``(I, J, K)``.

    - ``brain``: nonzero voxels;
    - ``CSF``, ``GM``, ``WM``: from ``tissues``, without the tumor;
    - ``WT``, ``TC``, ``ET``, ``NCR``, ``ED``: from the ground truth; ``RC`` too if the layout of
      the case has it, even if it is empty;
    - ``boundary``: brain within 2 mm of the surface of WT.

    Parameters
    ----------
    case
        Case with the volumes and the ground truth.
    tissues
        ``(I, J, K)``: 1 CSF, 2 gray matter, 3 white matter; see
        :func:`~neuroxai.data.tissues.case_tissues`.
    user_masks
        Additional masks by name; nonzero voxels belong to the concept.

    Raises
    ------
    CaseError
        If a mask does not have the shape of the case, or has the name of another concept.

    Examples
    --------
    >>> from neuroxai.data.phantom import make_phantom
    >>> phantom = make_phantom(7, spacing=3.0)
    >>> sorted(concept_masks(phantom.case, tissues=phantom.tissues))
    ['CSF', 'ED', 'ET', 'GM', 'NCR', 'TC', 'WM', 'WT', 'boundary', 'brain']
    """
    brain = case.brain()
    masks: dict[str, Mask] = {"brain": brain}
    empty = np.zeros(case.shape, dtype=bool)
    tumor = empty if case.truth is None else region(case.truth, "WT")
    lesion = empty if case.truth is None else case.truth > 0  # tumor and resection cavity
    if tissues is not None:
        _check("the tissue map", tissues, case)
        for number, name in enumerate(TISSUES, start=1):
            masks[name] = (np.asarray(tissues) == number) & brain & ~lesion
    if case.truth is not None:
        masks.update({name: region(case.truth, name) for name in REGIONS})
        for number, name in enumerate(CLASSES[1:], start=1):
            labeled = case.truth == number
            # Decided by the layout, so that all cases of a cohort have the same concepts.
            if name not in masks and (
                name != "RC" or name in case.layout.labels or bool(labeled.any())
            ):
                masks[name] = labeled
        masks["boundary"] = boundary(tumor, case.spacing) & brain
    for name, mask in (user_masks or {}).items():
        if name in masks:
            raise CaseError(f"{case.name}: the concept {name!r} already exists; rename the mask")
        _check(f"the mask {name!r}", mask, case)
        masks[name] = np.asarray(mask) != 0
    return masks


def boundary(mask: Mask, spacing: tuple[float, float, float], reach: float = BOUNDARY_MM) -> Mask:
    """Return the voxels whose center is within ``reach`` mm of the surface of a mask.

    The surface consists of voxel faces. The distance is measured from the voxel center to the
    nearest voxel on the other side of the surface.

    Examples
    --------
    >>> line = np.zeros((9, 1, 1), bool); line[:4] = True
    >>> boundary(line, (1.0, 1.0, 1.0), reach=1.5).ravel().astype(int).tolist()
    [0, 0, 1, 1, 1, 1, 0, 0, 0]
    """
    from scipy.ndimage import binary_dilation

    if not mask.any() or mask.all():
        return np.zeros_like(mask)
    counts = [int(reach / edge + 0.5) for edge in spacing]
    offsets = np.indices([2 * count + 1 for count in counts]) - np.reshape(counts, (3, 1, 1, 1))
    edges = np.reshape(spacing, (3, 1, 1, 1))
    gaps = np.maximum(np.abs(offsets) * edges - edges / 2, 0)
    near = np.sqrt((gaps**2).sum(axis=0)) <= reach + _ROUNDING
    shell = np.zeros_like(mask)
    box = bounding_box(mask, [count + 1 for count in counts])
    inside = mask[box]
    # The structuring element is symmetric, so dilation needs no reflection.
    shell[box] = np.where(inside, binary_dilation(~inside, near), binary_dilation(inside, near))
    return shell


def _check(what: str, mask: NDArray[Any], case: Case) -> None:
    if np.asarray(mask).shape != case.shape:
        raise CaseError(
            f"{case.name}: {what} has the shape {np.asarray(mask).shape}, expected {case.shape} "
            "as the scan; resample it to the grid of the scan"
        )
