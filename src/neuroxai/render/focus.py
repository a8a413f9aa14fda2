"""Choice of the slices of a figure and of the regions that are outlined in it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neuroxai.render.colors import (
    LABELS,
    PREDICTION_LINE,
    TARGET_CLASSES,
    TRUTH_LINE,
    WITHIN_LINE,
)
from neuroxai.render.planes import center
from neuroxai.render.scan import HeatMap, Scan, depth
from neuroxai.render.sheet import Line


def outlines_of(scan: Scan, target: str) -> dict[str, tuple[NDArray[np.bool_], Line]]:
    """Return the outlines of a figure by their names: prediction, ground truth, restriction.

    The region of the target is outlined, or all classes if the target has no region. A mask that
    the target is restricted to has its own outline, unless it is the target's region in the
    prediction or in the ground truth.
    """
    what, classes = candidates(scan, target)[0]
    found: dict[str, tuple[NDArray[np.bool_], Line]] = {}
    for title, labels, line in (
        ("prediction", scan.prediction, Line(PREDICTION_LINE)),
        ("truth", scan.truth, Line(TRUTH_LINE, "dashed")),
    ):
        if labels is not None:
            averaged = ", where the target is averaged" if scan.target_mask_name == title else ""
            found[f"{what} in the {title}{averaged}"] = np.isin(labels, classes), line
    if scan.target_mask is not None and scan.target_mask_name not in ("prediction", "truth"):
        name = f"{scan.target_mask_name}, where the target is averaged"
        found[name] = scan.target_mask.astype(bool), Line(WITHIN_LINE)
    return found


def candidates(scan: Scan, target: str) -> list[tuple[str, tuple[int, ...]]]:
    """Return names and classes of the regions that a target may refer to, the best first."""
    everything = tuple(range(1, len(scan.classes)))
    if scan.classes != LABELS:
        own = [(name, (i,)) for i, name in enumerate(scan.classes) if i and name == target]
        return [*own, ("all classes", everything)]
    words = re.split(r"[^A-Za-z0-9]+", target)
    name = next((word for word in words if word in TARGET_CLASSES), None)
    return [*([(name, TARGET_CLASSES[name])] if name else []), ("tumor", everything)]


def _focus(scan: Scan, target: str) -> tuple[NDArray[np.bool_], str] | None:
    """Return the mask by which the slices are selected, and its description."""
    if scan.target_mask is not None and scan.target_mask.any():
        return scan.target_mask.astype(bool), scan.target_mask_name
    for what, classes in candidates(scan, target):
        for where, labels in (("truth", scan.truth), ("prediction", scan.prediction)):
            if labels is not None:
                mask = np.isin(labels, classes)
                if mask.any():
                    return mask, f"{what} in the {where}"
    return None


def _strength(scan: Scan, maps: Sequence[HeatMap]) -> NDArray[np.float64] | None:
    """Return the sum of |attribution| over maps, each normalized to 1; None if all are zero."""
    shape = next(iter(scan.modalities.values())).shape
    total = np.zeros(shape)
    for heat in maps:
        magnitude = np.abs(heat.values.astype(np.float64)).sum(axis=0)
        weight = float(magnitude.sum())
        if np.isfinite(weight) and weight > 0:
            total += magnitude / weight
    return total if total.any() else None


def axial_slice(scan: Scan, maps: Sequence[HeatMap], target: str) -> tuple[int, str]:
    """Return the slice of the figure by modality, and the reason for the choice."""
    if scan.slice_only is not None:
        return scan.slice_only, "input slice of the network"
    if (focus := _focus(scan, target)) is not None:
        mask, what = focus
        return int(np.argmax(mask.sum(axis=(0, 1)))), f"largest area of {what}"
    if (strength := _strength(scan, maps)) is not None:
        return int(np.argmax(strength.sum(axis=(0, 1)))), "largest total |attribution|"
    return int(depth(scan) // 2), "center of the volume"


def center_point(
    scan: Scan, maps: Sequence[HeatMap], target: str
) -> tuple[tuple[int, int, int], str]:
    """Return the point where the three planes intersect, and the reason for the choice."""
    if (focus := _focus(scan, target)) is not None:
        mask, what = focus
        return center(mask), f"center of {what}"
    strength = _strength(scan, maps)
    if strength is None:
        x, y, z = (size // 2 for size in next(iter(scan.modalities.values())).shape)
        return (x, y, z), "center of the volume"
    x, y, z = (int(v) for v in np.unravel_index(int(np.argmax(strength)), strength.shape))
    return (x, y, z), "largest |attribution|"
