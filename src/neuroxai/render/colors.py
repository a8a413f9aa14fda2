"""From numbers to colors: the only place where a value is clipped, and only for the eye."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

PERCENTILE = 99.5
"""The share of ``|value|``, in percent, that a heat map's colors span."""

LABELS = ("background", "NCR", "ED", "ET", "RC")
"""Tissue classes by index; the same order as ``data.case.CLASSES``."""

LABEL_COLORS = (
    "#000000", "#D55E00", "#009E73", "#F0E442", "#56B4E9", "#CC79A7", "#E69F00", "#0072B2",
)  # fmt: skip
"""One color a class, told apart by color-blind readers too (Okabe and Ito); a network with more
classes of its own begins anew."""

FOCUS = {
    "WT": (1, 2, 3),
    "TC": (1, 3),
    "ET": (3,),
    "NCR": (1,),
    "ED": (2,),
    "RC": (4,),
}
"""Class indices of each target name that lies somewhere in the picture."""


class Limits(NamedTuple):
    """The colors of one heat map: ``vmin`` and ``vmax`` in attribution units, and a colormap."""

    vmin: float
    vmax: float
    cmap: str

    def share(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return ``|value| / vmax`` clipped to 0…1, an overlay's opacity; same shape."""
        return np.clip(np.abs(values.astype(np.float64)) / self.vmax, 0.0, 1.0)


def color_limits(values: NDArray[Any], *, signed: bool) -> Limits:
    """Choose the colors of a heat map from the values that are shown.

    ``v = 99.5th percentile of |values|`` (the largest ``|value|`` where that is zero). A signed
    map gets a diverging colormap from ``-v`` to ``v``, so that white is zero; an unsigned one a
    sequential colormap from 0 to ``v``. A map with a negative value is always shown as signed.

    Parameters
    ----------
    values
        Attributions of any shape, all finite, not all zero.
    signed
        Whether the method's sign has a meaning.

    Raises
    ------
    ValueError
        If ``values`` is empty, all zero or not finite: such a map has no honest colors.

    Examples
    --------
    >>> color_limits(np.array([-4.0, 0.0, 2.0, 4.0]), signed=True)
    Limits(vmin=-4.0, vmax=4.0, cmap='RdBu_r')
    >>> color_limits(np.array([0.0, 1.0, 1.0]), signed=False)
    Limits(vmin=0.0, vmax=1.0, cmap='inferno')
    """
    size = np.abs(values.astype(np.float64))
    if not np.isfinite(size).all():
        raise ValueError("values that are not finite have no colors")
    top = float(np.percentile(size, PERCENTILE)) if size.size else 0.0
    top = top or float(size.max(initial=0.0))
    if top == 0.0:
        raise ValueError("a map that is zero everywhere has no colors")
    if signed or float(values.min()) < 0:
        return Limits(-top, top, "RdBu_r")
    return Limits(0.0, top, "inferno")


def gray_window(volume: NDArray[Any], background: float) -> tuple[float, float]:
    """Return the gray values drawn black and white: percentiles 0.5 and 99.5 of the brain.

    Air (``background``) does not count; as a rule it is darker and so is black as well. A
    constant brain is drawn white, an image with no finite voxel has the window ``(0, 1)``.
    """
    brain = volume[np.isfinite(volume) & (volume != background)]
    if brain.size == 0:
        return (0.0, 1.0)
    low, high = (float(v) for v in np.percentile(brain, (0.5, 99.5)))
    if high > low:
        return (low, high)
    return (background, low) if background < low else (low, low + 1.0)


def label_layer(labels: NDArray[Any], opacity: float = 0.6) -> NDArray[np.float32]:
    """Return ``(rows, columns, 4)`` RGBA in 0…1 for class indices; background is clear."""
    table = np.zeros((len(LABEL_COLORS), 4), dtype=np.float32)
    for index, color in enumerate(LABEL_COLORS[1:], start=1):
        table[index] = [*(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)), opacity]
    colored: NDArray[np.float32] = table[color_index(labels.astype(np.intp))]
    return colored


def color_index(label: Any) -> Any:
    """Return which of :data:`LABEL_COLORS` a class index has, or an array of them.

    Examples
    --------
    >>> color_index([0, 3, 7, 8]).tolist()
    [0, 3, 7, 1]
    """
    index = np.asarray(label)
    return np.where(index == 0, 0, (index - 1) % (len(LABEL_COLORS) - 1) + 1)[()]
