"""Figures that compare methods: by modality, and in three planes.

The layout follows Figs. 3 and 4 of Zeineldin et al. 2022, doi:10.1007/s11548-022-02619-x. In
addition, signs are shown, every column has a color bar, and directions are labeled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import OutputError, suggestion
from neuroxai.render.colors import (
    LABELS,
    PERCENTILE,
    TARGET_CLASSES,
    Limits,
    color_limits,
    gray_window,
    label_layer,
)
from neuroxai.render.montage import Column, Montage, Panel, Row
from neuroxai.render.planes import AXIAL, NO_LETTERS, PLANES, Plane, brain_box, center, crop
from neuroxai.render.scan import HeatMap, Scan, check, depth

CONVENTION = "Radiological convention: the patient's right is on the left of the image."
UNKNOWN_SIDES = "Left and right of the patient are unknown; the picture is shown as it is."

_DIMMED = 0.35
"""Brightness factor outside of the target mask."""


def draw_modalities(
    scan: Scan,
    maps: Sequence[HeatMap],
    target: str,
    path: Path,
    *,
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Draw an axial slice through the tumor, with one row per modality and one column per method.

    The slice has the largest area of the target in the ground truth, or in the prediction without
    a ground truth, or the largest total ``|attribution|`` without either. For a 2D network it is
    the slice of the input. The columns are input, maps, the first class activation map over the
    input, prediction and ground truth. Maps that are all zero or not finite are replaced by a
    remark.

    Parameters
    ----------
    target
        Explained target, for the title. If it contains the name of a region or class (``WT``,
        ``TC``, ``ET``, ``NCR``, ``ED``, ``RC``), the slice is selected by it, otherwise by the
        whole tumor.
    path
        PNG file, written atomically with reproducible bytes.
    facts
        Shown below the title, in order: score or probability, model, completeness gap, ….

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    OutputError
        If shapes or channel names are inconsistent, or the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> flair = np.zeros((6, 8, 5)); flair[1:5, 1:7] = 1.0
    >>> heat = HeatMap("vanilla_gradient", "Vanilla gradient", flair[None] - 0.5, True, ("FLAIR",))
    >>> out = Path(tempfile.mkdtemp()) / "modalities.png"
    >>> draw_modalities(Scan("case", {"FLAIR": flair}), [heat], "ET", out).name
    'modalities.png'
    """
    check(scan, maps)
    named = {channel for heat in maps for channel in heat.channels if channel}
    rows = [m for m in scan.modalities if m in named] or list(scan.modalities)
    index, reason = axial_slice(scan, maps, target)
    cuts = [(modality, modality, AXIAL, index) for modality in rows]
    note = f"Axial slice {index} (of {depth(scan)}, from 0 at the feet): {reason}."
    return _sheet(scan, maps, cuts, target, facts or {}, note).save(path)


def draw_planes(
    scan: Scan,
    maps: Sequence[HeatMap],
    target: str,
    path: Path,
    *,
    modality: str,
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Draw one modality in axial, coronal and sagittal planes through the tumor, one per row.

    The planes intersect at the center of the target mask, if there is one. Otherwise, it is the
    center of the largest connected component of the target in the ground truth or the prediction,
    or else the voxel with the largest ``|attribution|``. Columns, parameters and errors are those
    of :func:`draw_modalities`; ``modality`` is the displayed scan.

    Raises
    ------
    OutputError
        Also if the scan has a single slice, or does not have the modality.

    Examples
    --------
    >>> import tempfile
    >>> flair = np.zeros((6, 8, 5)); flair[1:5, 1:7] = 1.0
    >>> heat = HeatMap("grad_cam", "Grad-CAM", flair[None], False)
    >>> out = Path(tempfile.mkdtemp()) / "planes.png"
    >>> draw_planes(Scan("case", {"FLAIR": flair}), [heat], "ET", out, modality="FLAIR").name
    'planes.png'
    """
    check(scan, maps)
    if modality not in scan.modalities:
        known = suggestion(modality, scan.modalities)
        raise OutputError(f"{scan.name}: unknown modality {modality!r}; {known}")
    if scan.slice_only is not None:
        raise OutputError(
            f"{scan.name}: maps of 2D networks have a single plane; use the figure by modality"
        )
    point, reason = _center(scan, maps, target)
    cuts = [(plane.name, modality, plane, point[plane.through]) for plane in PLANES]
    note = f"{modality}; planes intersect at voxel {point} of the RAS+ grid: {reason}."
    return _sheet(scan, maps, cuts, f"{target} · {modality}", facts or {}, note).save(path)


Cut = tuple[str, str, Plane, int]  # row label, modality, plane, slice


def _sheet(
    scan: Scan,
    maps: Sequence[HeatMap],
    cuts: Sequence[Cut],
    target: str,
    facts: Mapping[str, str],
    note: str,
) -> Montage:
    """Return the montage of all columns, cut in the same planes."""
    box = brain_box(scan.modalities.values(), scan.spacing)

    def cut(volume: NDArray[Any], plane: Plane, index: int) -> NDArray[Any]:
        index = 0 if volume.shape[plane.through] == 1 else index
        return plane.cut(volume[crop(box, plane)], index)

    grays = []
    for _, modality, plane, index in cuts:
        volume = scan.modalities[modality]
        low, high = gray_window(volume, float(volume[0, 0, 0]))
        shade = (cut(volume, plane, index).astype(np.float64) - low) / (high - low)
        grays.append(np.nan_to_num(shade, nan=0.0))
    rows = [
        Row(
            label,
            (
                gray.shape[1] * scan.spacing[plane.across],
                gray.shape[0] * scan.spacing[plane.up],
            ),
            plane.letters if scan.laterality_known else NO_LETTERS,
        )
        for (label, _, plane, _), gray in zip(cuts, grays, strict=True)
    ]
    columns = [Column("Input", [Panel(gray=gray) for gray in grays])]
    for heat in maps:
        shown = [cut(heat.volume(modality), plane, index) for _, modality, plane, index in cuts]
        columns.append(_heat_column(heat, shown))
    if maps:
        overlaid = next((number for number, heat in enumerate(maps) if heat.shared), 0)
        columns.append(_overlay(columns[1 + overlaid], grays))
    if scan.target_mask is not None:
        panels = [
            Panel(gray=np.where(cut(scan.target_mask, plane, index), gray, _DIMMED * gray))
            for gray, (_, _, plane, index) in zip(grays, cuts, strict=True)
        ]
        columns.insert(1, Column(f"Restricted to\n{scan.target_mask_name}", panels))
    legend: set[int] = set()
    for title, labels in (("Prediction", scan.prediction), ("Truth", scan.truth)):
        if labels is None:
            continue
        layers = [cut(labels, plane, index) for _, _, plane, index in cuts]
        legend.update(int(v) for layer in layers for v in np.unique(layer) if v)
        panels = [
            Panel(gray=gray, labels=label_layer(layer))
            for gray, layer in zip(grays, layers, strict=True)
        ]
        columns.append(Column(title, panels))
    title = f"{scan.name}  ·  target {target}"
    for key in ("score", "probability"):
        title += f"  ·  {key} {facts[key]}" if key in facts else ""
    rest = {k: v for k, v in facts.items() if k not in ("score", "probability")}
    return Montage(title, rows, columns, rest, scan.legend(legend), _notes(scan, maps, note))


def convention(scan: Scan) -> str:
    """Return the note on left and right for a scan."""
    return CONVENTION if scan.laterality_known else UNKNOWN_SIDES


def _notes(scan: Scan, maps: Sequence[HeatMap], note: str) -> list[str]:
    """Return the notes below the figure."""
    x, y, z = scan.spacing
    notes = [f"{convention(scan)} {note} Voxels {x:g} x {y:g} x {z:g} mm."]
    if scan.obliquity:
        notes[0] += (
            f" The scan is tilted by {scan.obliquity:.0f}°: planes and letters follow its own axes."
        )
    if not scan.laterality_known:
        notes = [f"{convention(scan)} The pixel size is unknown."]
    if maps:
        notes.append(
            f"The color scale of each column ends at the {PERCENTILE:g}th percentile of "
            "|attribution| in the displayed slices. Larger values are clipped in the figure only."
        )
    doubled = {c for heat in maps for c in heat.channels if heat.channels.count(c) > 1}
    if doubled:
        names = ", ".join(sorted(doubled))
        notes.append(f"{names} is the input of several channels; their maps are summed.")
    return notes


def _heat_column(heat: HeatMap, shown: Sequence[NDArray[Any]]) -> Column:
    """Return the column of a map with a common color scale, or with a remark if it has none."""
    bad = int(heat.values.size - np.isfinite(heat.values).sum())
    if bad:
        remark = f"not finite:\n{bad} of\n{heat.values.size} values"
        return Column(heat.title, [Panel(remark=remark) for _ in shown])
    if not heat.values.any():
        return Column(heat.title, [Panel(remark="all zero") for _ in shown])
    flat = np.concatenate([picture.ravel() for picture in shown])
    if not flat.any():
        return Column(heat.title, [Panel(remark="zero in\nthis slice") for _ in shown])
    panels = [
        Panel(heat=picture) if picture.any() else Panel(remark="zero in\nthis slice")
        for picture in shown
    ]
    return Column(heat.title, panels, color_limits(flat, signed=heat.signed))


def _overlay(column: Column, grays: Sequence[NDArray[Any]]) -> Column:
    """Return a column of maps over the scan, with opacity proportional to magnitude."""
    limits: Limits | None = column.limits
    panels = []
    for panel, gray in zip(column.panels, grays, strict=True):
        if panel.heat is None or limits is None:
            panels.append(Panel(gray=gray))
        else:
            opacity = 0.75 * limits.opacity(panel.heat)
            panels.append(Panel(gray=gray, heat=panel.heat, opacity=opacity))
    return Column(f"{column.title} over input", panels, limits)


def _focus(scan: Scan, target: str) -> tuple[NDArray[np.bool_], str] | None:
    """Return the mask by which the slices are selected, and its description."""
    if scan.target_mask is not None and scan.target_mask.any():
        return scan.target_mask.astype(bool), scan.target_mask_name
    everything = tuple(range(1, len(scan.classes)))
    if scan.classes == LABELS:
        words = re.split(r"[^A-Za-z0-9]+", target)
        name = next((word for word in words if word in TARGET_CLASSES), None)
        candidates: list[tuple[str, tuple[int, ...]]] = []
        if name:
            candidates.append((name, TARGET_CLASSES[name]))
        candidates.append(("tumor", everything))
    else:
        candidates = [(name, (i,)) for i, name in enumerate(scan.classes) if i and name == target]
        candidates.append(("all classes", everything))
    for what, classes in candidates:
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


def _center(scan: Scan, maps: Sequence[HeatMap], target: str) -> tuple[tuple[int, int, int], str]:
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
