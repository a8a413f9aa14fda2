"""Phantoms whose grade depends on exactly one known thing, to hold explanations against."""

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
"""Name of each variant to the modalities in which the grade can be seen."""

MARKER_MM = (82.0, 91.0)
"""Where the corner marker begins and ends, in mm from the middle toward right and front."""

TILT = 0.35
"""Relative change of signal from the middle to 80 mm on the patient's left."""


@dataclass(frozen=True, eq=False)
class Cause:
    """The one thing a planted variant's grade depends on.

    Attributes
    ----------
    modalities
        Where it can be seen.
    mask
        ``(I, J, K)``, the voxels that carry it. In a low-grade phantom, which lacks it, the mask
        marks where it would be: for the same seed both grades have the same mask.

    Notes
    -----
    The mask holds for the images as they are made, not for what a network is given: mean, deviation
    and extremes of a brain that intensities are scaled by depend on the planted voxels too. So with
    ``edema_flair`` the median FLAIR outside the mask tells the grade with an AUC of 0.74 after
    ``zscore_minmax`` and 0.76 after ``zscore_scaled``, but 0.50 (not at all) as made, over 24 heads
    of 3 mm in both grades. A map that points outside the mask is not wrong for that alone.
    """

    modalities: tuple[str, ...]
    mask: NDArray[np.bool_]


def check_variant(variant: str | None) -> None:
    """Refuse a variant that does not exist.

    Raises
    ------
    CaseError
        With the closest name there is.
    """
    if variant is not None and variant not in VARIANTS:
        raise CaseError(f"there is no phantom variant {variant!r}: {suggestion(variant, VARIANTS)}")


def corner_mask(axes: Axes) -> NDArray[np.bool_]:
    """Return the marker: a bar from feet to head, in the right front corner of every slice.

    It lies in the background, and within the middle 192 × 192 mm that preprocessing keeps.
    """
    low, high = MARKER_MM
    right, front = (axes[0] >= low) & (axes[0] <= high), (axes[1] >= low) & (axes[1] <= high)
    mask: NDArray[np.bool_] = right[:, None, None] & front[None, :, None]
    return np.repeat(mask, axes[2].size, axis=2)


def bias_tilt(axes: Axes) -> Array:
    """Return the multiplier of the scanner variant's high grade, brighter on the patient's left."""
    tilt = 1 - np.float32(TILT) * np.clip(axes[0] / 80, -1.2, 1.2)
    shape = (axes[0].size, axes[1].size, axes[2].size)
    return np.ascontiguousarray(np.broadcast_to(tilt[:, None, None], shape), dtype=np.float32)
