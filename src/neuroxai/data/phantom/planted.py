"""Planted causes: phantoms whose grade depends on a single known feature, to test explanations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError, suggestion
from neuroxai.data.case import MODALITIES
from neuroxai.data.phantom.field import Array, Axes

VARIANTS: Mapping[str, tuple[str, ...]] = {
    "rim_t1ce": ("T1ce",),
    "edema_flair": ("FLAIR",),
    "corner_marker": MODALITIES,
    "scanner_bias": MODALITIES,
}
"""Variant name to the modalities that show the grade."""

MARKER_MM = (82.0, 91.0)
"""Start and end of the corner marker, in mm from the center toward right and anterior."""

TILT = 0.35
"""Relative change of signal from the center to 80 mm on the patient's left."""


@dataclass(frozen=True, eq=False)
class Cause:
    """The single feature that determines the grade of a planted variant.

    Attributes
    ----------
    modalities
        Modalities that show the feature.
    mask
        ``(I, J, K)``, the voxels of the feature. In a low-grade phantom, which does not have the
        feature, the mask is its position in a high-grade phantom: both grades of one seed have
        the same mask.

    Notes
    -----
    The mask applies to the images before preprocessing. Intensity normalization uses statistics
    of the whole brain, which include the planted voxels, so it spreads information on the grade.
    For ``edema_flair``, the median FLAIR signal outside the mask predicts the grade with an AUC
    of 0.50 (chance) before normalization, 0.74 after ``zscore_minmax`` and 0.76 after
    ``zscore_scaled`` (24 heads of 3 mm in both grades). Relevance outside the mask is therefore
    not necessarily wrong.
    """

    modalities: tuple[str, ...]
    mask: NDArray[np.bool_]


def check_variant(variant: str | None) -> None:
    """Check the name of a variant.

    Raises
    ------
    CaseError
        If it is unknown, with a suggestion.
    """
    if variant is not None and variant not in VARIANTS:
        raise CaseError(f"unknown phantom variant {variant!r}; {suggestion(variant, VARIANTS)}")


def corner_mask(axes: Axes) -> NDArray[np.bool_]:
    """Return the mask of the marker, a bar in the right anterior corner of every axial slice.

    It is in the background, within the central 192 × 192 mm that preprocessing keeps.
    """
    low, high = MARKER_MM
    right, front = (axes[0] >= low) & (axes[0] <= high), (axes[1] >= low) & (axes[1] <= high)
    mask: NDArray[np.bool_] = right[:, None, None] & front[None, :, None]
    return np.repeat(mask, axes[2].size, axis=2)


def bias_tilt(axes: Axes) -> Array:
    """Return the bias factor of high-grade ``scanner_bias`` phantoms, brighter on the left."""
    tilt = 1 - np.float32(TILT) * np.clip(axes[0] / 80, -1.2, 1.2)
    shape = (axes[0].size, axes[1].size, axes[2].size)
    return np.ascontiguousarray(np.broadcast_to(tilt[:, None, None], shape), dtype=np.float32)
