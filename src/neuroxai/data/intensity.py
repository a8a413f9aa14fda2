"""Intensity normalization of one modality."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuroxai.core.box import bounding_box
from neuroxai.core.errors import CaseError
from neuroxai.files.schema import Schema

Intensity = Literal[
    "zscore_minmax",
    "zscore_scaled",
    "zscore_robust",
    "zscore_robust_scaled",
    "zscore",
    "zscore_nonzero",
    "zscore_filled",
    "zscore_box",
    "minmax",
    "minmax_box",
    "none",
]
"""Names of the normalizations; see :class:`~neuroxai.data.preprocessing.Preprocessing`."""

MIDDLE = (2.0, 98.0)
"""Percentiles of the brain between which a robust z-score measures mean and deviation.

Bright vessels and fluid are the tails in which real scans differ most from each other and from
phantoms; the middle 96 % contain the tissues.
"""


class FixedScale(Schema):
    """Normalization by fixed numbers: ``(clip(v, low, high) - subtract) / divide``."""

    low: float | None = None
    """Smallest value; null does not clip."""
    high: float | None = None
    """Largest value; null does not clip."""
    subtract: float = 0.0
    """Number that is subtracted."""
    divide: float = Field(default=1.0, gt=0)
    """Number that the difference is divided by."""

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the normalized values.

        Examples
        --------
        >>> FixedScale(low=0.0, divide=2.0)(np.array([-4.0, 6.0], np.float32)).tolist()
        [0.0, 3.0]
        """
        if self.low is not None or self.high is not None:
            values = np.clip(values, self.low, self.high)
        scaled: NDArray[np.float32] = ((values - self.subtract) / self.divide).astype(np.float32)
        return scaled


def statistics_mask(kind: Intensity | FixedScale, brain: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the voxels that mean and standard deviation are computed over.

    ``zscore_nonzero`` uses the nonzero voxels of each modality instead; see :func:`normalize`.
    """
    if kind == "zscore_filled":
        from scipy.ndimage import binary_fill_holes

        filled: NDArray[np.bool_] = binary_fill_holes(brain)
        return filled
    if kind in ("zscore_box", "minmax_box"):
        whole = np.zeros_like(brain)
        whole[bounding_box(brain)] = True
        return whole
    return brain


def normalize(
    label: str,
    volume: NDArray[np.float32],
    mask: NDArray[np.bool_],
    kind: Intensity | FixedScale,
    clip: float | None,
) -> tuple[NDArray[np.float32], float]:
    """Normalize a volume.

    Parameters
    ----------
    label
        Name of the scan, for error messages.
    volume
        Intensities ``(X, Y, Z)``.
    mask
        Voxels ``(X, Y, Z)`` to compute statistics over; see :func:`statistics_mask`.
    kind, clip
        See :class:`~neuroxai.data.preprocessing.Preprocessing`.

    Returns
    -------
    volume
        Normalized intensities, 0 outside the mask.
    background_value
        Normalized value of air, see :func:`air_intensity`. Where the mask leaves air out, the
        volume is 0 there; after a z-score this is the mean of the brain, and air is darker.

    Raises
    ------
    CaseError
        If the volume is constant inside the mask, and is not normalized by fixed numbers.

    Examples
    --------
    >>> volume = np.array([0, 1, 3], np.float32)
    >>> normalize("T1", volume, volume != 0, "zscore", None)
    (array([ 0., -1.,  1.], dtype=float32), -2.0)
    """
    if isinstance(kind, FixedScale):
        return kind(volume), float(kind(np.array([air_intensity(volume)], np.float32))[0])
    if kind == "zscore_nonzero":
        mask = volume != 0
    values = volume[mask].astype(np.float64)
    if not values.size or values.min() == values.max():
        gray = values[0] if values.size else 0
        raise CaseError(f"{label} is constant ({gray:g}) inside the brain; check the export")
    air = air_intensity(volume)
    if kind == "none":
        return volume, air
    if kind in ("minmax", "minmax_box"):
        whole = volume if kind == "minmax" else values
        low, high = float(whole.min()), float(whole.max())
        return (volume - np.float32(low)) / np.float32(high - low), (air - low) / (high - low)
    mean, deviation = _moments(label, values, robust=kind.startswith("zscore_robust"))
    bound = math.inf if clip is None else float(clip)
    z = np.clip((values - mean) / deviation, -bound, bound)
    background_value = min(max((air - mean) / deviation, -bound), bound)
    if kind in ("zscore_minmax", "zscore_scaled", "zscore_robust_scaled"):
        minmax = kind == "zscore_minmax"
        low, high = (float(z.min()), float(z.max())) if minmax else (-bound, bound)
        z = (z - low) / (high - low)
        # Zero is the darkest value, and that of air which the mask leaves out.
        background_value = max(0.0, (background_value - low) / (high - low)) if air else 0.0
    normalized = np.zeros_like(volume)
    normalized[mask] = z
    return normalized, background_value


def _moments(label: str, values: NDArray[np.float64], *, robust: bool) -> tuple[float, float]:
    """Return mean and standard deviation of all values, or of those within :data:`MIDDLE`."""
    if robust:
        low, high = np.percentile(values, MIDDLE)
        values = values[(values >= low) & (values <= high)]
        if not values.size or values.min() == values.max():
            raise CaseError(
                f"{label} is constant ({low:g} to {high:g}) in the middle 96 % of the brain; check "
                "the export, or use a z-score over the whole brain"
            )
    return float(values.mean()), float(values.std())


def air_intensity(volume: NDArray[np.float32]) -> float:
    """Return the intensity of air in a volume ``(X, Y, Z)``; see :func:`core.air.air_value`.

    It is 0 of a skull-stripped scan, about −1024 of a CT, and negative after a z-score.

    Examples
    --------
    >>> air_intensity(np.array([-1024, -1024, 20, 40, 60, -1024, -1024], np.float32))
    -1024.0
    """
    import torch

    from neuroxai.core.air import air_value

    return float(air_value(torch.from_numpy(np.ascontiguousarray(volume))[None, None]))
