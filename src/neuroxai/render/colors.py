"""Color mapping of values, labels and gray images; values are clipped here only, for display."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

PERCENTILE = 99.5
"""Percentile of ``|value|`` at which the color scale of a heat map ends."""

LABELS = ("background", "NCR", "ED", "ET", "RC")
"""Class names by index, in the order of ``data.case.CLASSES``."""

LABEL_COLORS = (
    "#000000", "#D55E00", "#009E73", "#F0E442", "#56B4E9", "#CC79A7", "#E69F00", "#0072B2",
)  # fmt: skip
"""Color of each class, from the color-blind safe palette of Okabe and Ito; the colors repeat for
networks with more classes."""

TARGET_CLASSES = {
    "WT": (1, 2, 3),
    "TC": (1, 3),
    "ET": (3,),
    "NCR": (1,),
    "ED": (2,),
    "RC": (4,),
}
"""Class indices of each target name that denotes a region."""


class Limits(NamedTuple):
    """Color scale of a heat map: ``vmin`` and ``vmax`` in attribution units, and a colormap."""

    vmin: float
    vmax: float
    cmap: str

    def opacity(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return ``|value| / vmax`` clipped to 0…1, the opacity in an overlay; same shape."""
        return np.clip(np.abs(values.astype(np.float64)) / self.vmax, 0.0, 1.0)


def color_limits(values: NDArray[Any], *, signed: bool) -> Limits:
    """Choose the color scale of a heat map from the displayed values.

    The scale ends at ``v``, the 99.5th percentile of ``|values|``, or the maximum if that is
    zero. Signed maps use a diverging colormap from ``-v`` to ``v`` with white at zero, unsigned
    maps a sequential colormap from 0 to ``v``. Maps with negative values are always shown as
    signed.

    Parameters
    ----------
    values
        Attributions of any shape, all finite, not all zero.
    signed
        Whether the sign of the attributions is meaningful.

    Raises
    ------
    ValueError
        If ``values`` is empty, all zero or not finite.

    Examples
    --------
    >>> color_limits(np.array([-4.0, 0.0, 2.0, 4.0]), signed=True)
    Limits(vmin=-4.0, vmax=4.0, cmap='RdBu_r')
    >>> color_limits(np.array([0.0, 1.0, 1.0]), signed=False)
    Limits(vmin=0.0, vmax=1.0, cmap='inferno')
    """
    magnitude = np.abs(values.astype(np.float64))
    if not np.isfinite(magnitude).all():
        raise ValueError("no color scale: the map has values that are not finite")
    top = float(np.percentile(magnitude, PERCENTILE)) if magnitude.size else 0.0
    top = top or float(magnitude.max(initial=0.0))
    if top == 0.0:
        raise ValueError("no color scale: the map is zero everywhere")
    if signed or float(values.min()) < 0:
        return Limits(-top, top, "RdBu_r")
    return Limits(0.0, top, "inferno")


def gray_window(volume: NDArray[Any], background: float) -> tuple[float, float]:
    """Return the display window of a volume: percentiles 0.5 and 99.5 of its foreground.

    Voxels with the value ``background`` are excluded. A constant foreground is displayed white;
    a volume without finite voxels has the window ``(0, 1)``.
    """
    foreground = volume[np.isfinite(volume) & (volume != background)]
    if foreground.size == 0:
        return (0.0, 1.0)
    low, high = (float(v) for v in np.percentile(foreground, (0.5, 99.5)))
    if high > low:
        return (low, high)
    return (background, low) if background < low else (low, low + 1.0)


def label_layer(labels: NDArray[Any], opacity: float = 0.6) -> NDArray[np.float32]:
    """Return an RGBA image ``(rows, columns, 4)`` in 0…1; the background is transparent."""
    table = np.zeros((len(LABEL_COLORS), 4), dtype=np.float32)
    for index, color in enumerate(LABEL_COLORS[1:], start=1):
        table[index] = [*(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)), opacity]
    colored: NDArray[np.float32] = table[color_index(labels.astype(np.intp))]
    return colored


def color_index(label: Any) -> Any:
    """Return the index into :data:`LABEL_COLORS` of a class index, or of an array of them.

    Examples
    --------
    >>> color_index([0, 3, 7, 8]).tolist()
    [0, 3, 7, 1]
    """
    index = np.asarray(label)
    return np.where(index == 0, 0, (index - 1) % (len(LABEL_COLORS) - 1) + 1)[()]
