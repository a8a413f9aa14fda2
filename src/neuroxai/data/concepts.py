"""Concepts: what a filter may have learned to see, as masks on the patient's own grid."""

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
"""Millimeters: a box that is just as far counts."""

BOUNDARY_MM = 2.0
"""How far from the tumor's surface its boundary reaches, to either side."""


def concept_masks(
    case: Case,
    *,
    tissues: NDArray[Any] | None = None,
    own: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, Mask]:
    """Return every concept that is known of a case, each ``(I, J, K)``.

    ``brain`` is all that is not air; ``CSF``, ``GM``, ``WM`` come from ``tissues``; ``WT``,
    ``TC``, ``ET``, ``NCR``, ``ED`` (and ``RC`` if the case's layout knows it, though it may be
    empty) and the tumor's ``boundary``, the shell within 2 mm of the surface of WT, from the
    truth. Tissue under the tumor is no longer that tissue.

    Parameters
    ----------
    case
        The study.
    tissues
        ``(I, J, K)``: 1 CSF, 2 gray matter, 3 white matter; see
        :func:`~neuroxai.data.tissues.case_tissues`.
    own
        Further masks by name; what is not zero belongs to the concept.

    Raises
    ------
    CaseError
        If a mask has another shape than the case, or the name of a concept that is there already.

    Examples
    --------
    >>> from neuroxai.data.phantom import make_phantom
    >>> phantom = make_phantom(7, spacing=3.0)
    >>> sorted(concept_masks(phantom.case, tissues=phantom.tissues))
    ['CSF', 'ED', 'ET', 'GM', 'NCR', 'TC', 'WM', 'WT', 'boundary', 'brain']
    """
    brain = case.brain()
    masks: dict[str, Mask] = {"brain": brain}
    nothing = np.zeros(case.shape, dtype=bool)
    tumor = nothing if case.truth is None else region(case.truth, "WT")
    changed = nothing if case.truth is None else case.truth > 0  # a cavity is no tissue either
    if tissues is not None:
        _check("tissues", tissues, case)
        for number, name in enumerate(TISSUES, start=1):
            masks[name] = (np.asarray(tissues) == number) & brain & ~changed
    if case.truth is not None:
        masks.update({name: region(case.truth, name) for name in REGIONS})
        for number, name in enumerate(CLASSES[1:], start=1):
            labeled = case.truth == number
            # By the layout, not by what occurs: cases of one cohort know the same concepts.
            if name not in masks and (
                name != "RC" or name in case.layout.labels or bool(labeled.any())
            ):
                masks[name] = labeled
        masks["boundary"] = boundary(tumor, case.spacing) & brain
    for name, mask in (own or {}).items():
        if name in masks:
            raise CaseError(f"{case.name}: the concept {name!r} is there already; rename the mask")
        _check(f"the mask {name!r}", mask, case)
        masks[name] = np.asarray(mask) != 0
    return masks


def boundary(mask: Mask, spacing: tuple[float, float, float], reach: float = BOUNDARY_MM) -> Mask:
    """Return the voxels whose center lies within ``reach`` mm of a mask's surface.

    The surface is that of the boxes that voxels are: what counts is the way from a center to the
    nearest box on the other side.

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
    ways = np.maximum(np.abs(offsets) * edges - edges / 2, 0)
    near = np.sqrt((ways**2).sum(axis=0)) <= reach + _ROUNDING
    found = np.zeros_like(mask)
    part = bounding_box(mask, [count + 1 for count in counts])
    within = mask[part]
    # The structure is its own mirror image: who is near a box, the box is near to.
    found[part] = np.where(within, binary_dilation(~within, near), binary_dilation(within, near))
    return found


def _check(what: str, mask: NDArray[Any], case: Case) -> None:
    if np.asarray(mask).shape != case.shape:
        raise CaseError(
            f"{case.name}: {what} has the shape {np.asarray(mask).shape}, expected that of the "
            f"scan, {case.shape}"
        )
