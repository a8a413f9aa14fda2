"""Concepts: what a filter may have learned to see, as masks on the patient's own grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError
from neuroxai.data.case import CLASSES, REGIONS, Case, region
from neuroxai.data.tissues import TISSUES

Mask = NDArray[np.bool_]

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
    ``TC``, ``ET``, ``NCR``, ``ED`` (and ``RC`` where it occurs) and the tumor's ``boundary``, the
    shell within 2 mm of the surface of WT, from the truth. Tissue under the tumor is no longer
    that tissue.

    Parameters
    ----------
    case
        The study.
    tissues
        ``(I, J, K)``: 1 CSF, 2 gray, 3 white matter; see :func:`~neuroxai.data.tissues.tissues_of`.
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
    tumor = np.zeros(case.shape, dtype=bool) if case.truth is None else case.truth > 0
    if tissues is not None:
        _check("tissues", tissues, case)
        for number, name in enumerate(TISSUES, start=1):
            masks[name] = (np.asarray(tissues) == number) & brain & ~tumor
    if case.truth is not None:
        masks.update({name: region(case.truth, name) for name in REGIONS})
        for number, name in enumerate(CLASSES[1:], start=1):
            if name not in masks and (name != "RC" or bool((case.truth == number).any())):
                masks[name] = case.truth == number
        masks["boundary"] = boundary(tumor, case.spacing) & brain
    for name, mask in (own or {}).items():
        if name in masks:
            raise CaseError(f"{case.name}: the concept {name!r} is there already; rename the mask")
        _check(f"the mask {name!r}", mask, case)
        masks[name] = np.asarray(mask) != 0
    return masks


def boundary(mask: Mask, spacing: tuple[float, float, float], reach: float = BOUNDARY_MM) -> Mask:
    """Return the voxels whose center lies within ``reach`` mm of a mask's surface.

    The surface runs half a voxel from the centers on either side of it.

    Examples
    --------
    >>> line = np.zeros((9, 1, 1), bool); line[:4] = True
    >>> boundary(line, (1.0, 1.0, 1.0), reach=1.5).ravel().astype(int).tolist()
    [0, 0, 1, 1, 1, 1, 0, 0, 0]
    """
    from scipy.ndimage import distance_transform_edt

    if not mask.any() or mask.all():
        return np.zeros_like(mask)
    half = min(spacing) / 2
    inward = distance_transform_edt(mask, sampling=spacing) - half
    outward = distance_transform_edt(~mask, sampling=spacing) - half
    found: Mask = np.where(mask, inward, outward) <= reach
    return found


def _check(what: str, mask: NDArray[Any], case: Case) -> None:
    if np.asarray(mask).shape != case.shape:
        raise CaseError(
            f"{case.name}: {what} has the shape {np.asarray(mask).shape}, expected that of the "
            f"scan, {case.shape}"
        )
