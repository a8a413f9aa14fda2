"""Color mapping of values, labels and gray images; values are clipped here only, for display."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

PERCENTILE = 99.5
"""Percentile of ``|value|`` at which the color scale of a heat map ends."""

FAINT = 0.45
"""Brightness of a scan beneath a map; at full brightness, white tissue hides the colors."""

PREDICTION_LINE, TRUTH_LINE, WITHIN_LINE = "#FFE600", "#FFFFFF", "#7CFC00"
"""Colors of the outlines: prediction, ground truth, and the mask of a restricted target."""

Kind = Literal["signed", "evidence", "magnitude", "activation"]
"""Meaning of the values of a map: signed evidence; evidence for the target only, as of Grad-CAM;
sizes without a sign, as of a variance; or the activation of a filter."""

COLORS: Mapping[Kind, tuple[str, str]] = MappingProxyType(
    {
        "signed": ("#FF3B30", "#2E86FF"),
        "evidence": ("#FF3B30", "#2E86FF"),
        "magnitude": ("#1ED6B5", "#1ED6B5"),
        "activation": ("#FFC040", "#A070FF"),
    }
)
"""Color of positive and of negative values. Red is evidence for the target and blue evidence
against it, and neither color has another meaning in a figure."""

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
    """Color scale of a heat map: ``vmin`` and ``vmax`` in attribution units, and its kind."""

    vmin: float
    vmax: float
    kind: Kind

    def opacity(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return ``|value| / vmax`` clipped to 0…1, the opacity in an overlay; same shape."""
        return np.clip(np.abs(values.astype(np.float64)) / self.vmax, 0.0, 1.0)

    def rgba(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return the colors of values, ``(..., 4)`` in 0…1.

        The hue is that of the sign and the opacity is :meth:`opacity`, so that zero is transparent.

        Examples
        --------
        >>> Limits(-2.0, 2.0, "signed").rgba(np.array([0.0, -1.0]))[:, 3].tolist()
        [0.0, 0.5]
        """
        positive, negative = (rgb(color) for color in COLORS[self.kind])
        hue = np.where(np.asarray(values)[..., None] < 0, negative, positive)
        return np.concatenate([hue, self.opacity(values)[..., None]], axis=-1)


def color_limits(values: NDArray[Any], kind: Kind) -> Limits:
    """Choose the color scale of a heat map from the displayed values.

    The scale ends at ``v``, the 99.5th percentile of ``|values|``, or the maximum if that is
    zero. The scale of signed maps runs from ``-v`` to ``v``, that of others from 0 to ``v``. Maps
    of evidence with negative values are always shown as signed.

    Parameters
    ----------
    values
        Attributions of any shape, all finite, not all zero.
    kind
        Meaning of the values.

    Raises
    ------
    ValueError
        If ``values`` is empty, all zero or not finite.

    Examples
    --------
    >>> color_limits(np.array([-4.0, 0.0, 2.0, 4.0]), "signed")
    Limits(vmin=-4.0, vmax=4.0, kind='signed')
    >>> color_limits(np.array([0.0, 1.0, 1.0]), "evidence")
    Limits(vmin=0.0, vmax=1.0, kind='evidence')
    """
    magnitude = np.abs(values.astype(np.float64))
    if not np.isfinite(magnitude).all():
        raise ValueError("no color scale: the map has values that are not finite")
    top = float(np.percentile(magnitude, PERCENTILE)) if magnitude.size else 0.0
    top = top or float(magnitude.max(initial=0.0))
    if top == 0.0:
        raise ValueError("no color scale: the map is zero everywhere")
    negative = float(values.min()) < 0
    if negative and kind in ("evidence", "magnitude"):
        kind = "signed"
    return Limits(-top if negative or kind == "signed" else 0.0, top, kind)


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
        table[index] = [*rgb(color), opacity]
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


def rgb(color: str) -> tuple[float, float, float]:
    """Return the parts of a color ``#RRGGBB`` in 0…1.

    Examples
    --------
    >>> rgb("#FF0033")
    (1.0, 0.0, 0.2)
    """
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue
