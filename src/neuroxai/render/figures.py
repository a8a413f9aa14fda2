"""Figures that compare methods: by modality, and in three planes.

The layout follows Figs. 3 and 4 of Zeineldin et al. 2022, doi:10.1007/s11548-022-02619-x. In
addition, signs are shown, every column has a color bar, and directions are labeled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from neuroxai.core.errors import OutputError, suggestion
from neuroxai.core.vocabulary import place_in_words
from neuroxai.render.background import background_modality
from neuroxai.render.colors import PERCENTILE, Kind
from neuroxai.render.cutter import Cut, Cutter
from neuroxai.render.focus import axial_slice, center_point
from neuroxai.render.montage import Block, Column, Montage, Panel
from neuroxai.render.planes import AXIAL, PLANES
from neuroxai.render.scan import HeatMap, Scan, check, depth
from neuroxai.render.specks import SPECK_MM2

CONVENTION = "Radiological convention: the patient's right is on the left of the image."
UNKNOWN_SIDES = "Left and right of the patient are unknown; the picture is shown as it is."


def draw_modalities(
    scan: Scan,
    maps: Sequence[HeatMap],
    target: str,
    path: Path,
    *,
    facts: Mapping[str, str] | None = None,
    background: str | None = None,
) -> Path:
    """Draw an axial slice through the tumor: the map of each modality, and the shared maps once.

    The upper block has one row per modality and one column per method, each map over the modality
    that carries it. The lower block has what belongs to all modalities, drawn once on
    ``background``: prediction, ground truth, and class activation maps. The region of the target
    in the prediction and in the ground truth is outlined.

    The slice has the largest area of the target in the ground truth, or in the prediction without
    a ground truth, or the largest total ``|attribution|`` without either. For a 2D network it is
    the slice of the input. Maps that are all zero or not finite are replaced by a remark.

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
    background
        Modality of the lower block; by default chosen by :func:`background_modality`.

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
    >>> import numpy as np
    >>> flair = np.zeros((6, 8, 5)); flair[1:5, 1:7] = 1.0
    >>> heat = HeatMap("vanilla_gradient", "Vanilla gradient", flair[None] - 0.5, "signed",
    ...                ("FLAIR",))
    >>> out = Path(tempfile.mkdtemp()) / "modalities.png"
    >>> draw_modalities(Scan("case", {"FLAIR": flair}), [heat], "ET", out).name
    'modalities.png'
    """
    check(scan, maps)
    shown = background or background_modality(target, scan.modalities, strongest(maps))
    check_modality(scan, shown)
    named = {channel for heat in maps for channel in heat.channels if channel}
    own, shared = ([heat for heat in maps if heat.shared is wanted] for wanted in (False, True))
    index, reason = axial_slice(scan, maps, target)
    cutter = Cutter(scan, target)
    once = Cut(shown, shown, AXIAL, index)
    if own:
        rows = [
            Cut(modality, modality, AXIAL, index)
            for modality in scan.modalities
            if modality in named
        ]
        blocks = [cutter.block(rows, [cutter.scan(rows), *(cutter.heat(h, rows) for h in own)])]
    else:
        rows = [Cut("", shown, AXIAL, index)]
        columns = [
            Column(modality, [Panel(gray=cutter.gray(Cut("", modality, AXIAL, index)))])
            for modality in scan.modalities
        ]
        blocks = [cutter.block(rows, columns)]
    below = [*cutter.labels([once]), *(cutter.heat(heat, [once]) for heat in shared)]
    if below:
        heading = f"The same for all modalities, drawn on {shown}"
        blocks.append(cutter.block([once], below, heading if len(scan.modalities) > 1 else ""))
    note = f"Axial slice {index} (of {depth(scan)}, from 0 at the feet): {reason}."
    name = target_name(target)
    return _montage(scan, maps, target, name, blocks, cutter, facts or {}, note).save(path)


def draw_planes(
    scan: Scan,
    maps: Sequence[HeatMap],
    target: str,
    path: Path,
    *,
    modality: str | None = None,
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Draw one modality in axial, coronal and sagittal planes through the tumor, one per row.

    The planes intersect at the center of the target mask, if there is one. Otherwise, it is the
    center of the largest connected component of the target in the ground truth or the prediction,
    or else the voxel with the largest ``|attribution|``. Other parameters and errors are those of
    :func:`draw_modalities`.

    Parameters
    ----------
    modality
        The displayed scan, with its own part of each map; by default chosen by
        :func:`background_modality`.

    Raises
    ------
    OutputError
        Also if the scan has a single slice, or does not have the modality.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> flair = np.zeros((6, 8, 5)); flair[1:5, 1:7] = 1.0
    >>> heat = HeatMap("grad_cam", "Grad-CAM", flair[None], "evidence")
    >>> out = Path(tempfile.mkdtemp()) / "planes.png"
    >>> draw_planes(Scan("case", {"FLAIR": flair}), [heat], "ET", out, modality="FLAIR").name
    'planes.png'
    """
    check(scan, maps)
    shown = modality or background_modality(target, scan.modalities, strongest(maps))
    check_modality(scan, shown)
    if scan.slice_only is not None:
        raise OutputError(
            f"{scan.name}: maps of 2D networks have a single plane; use the figure by modality"
        )
    point, reason = center_point(scan, maps, target)
    cuts = [Cut(plane.name, shown, plane, point[plane.through]) for plane in PLANES]
    cutter = Cutter(scan, target)
    columns = [
        cutter.scan(cuts),
        *(cutter.heat(heat, cuts, name_share=True) for heat in maps),
        *cutter.labels(cuts),
    ]
    blocks = [cutter.block(cuts, columns)]
    note = f"{shown}; planes intersect at voxel {point} of the RAS+ grid: {reason}."
    title = f"{target_name(target)} · {shown}"
    return _montage(scan, maps, target, title, blocks, cutter, facts or {}, note).save(path)


_REGION_WORDS = {"WT": "whole tumor", "TC": "tumor core", "ET": "enhancing tumor"}


def target_name(target: str) -> str:
    """Return a target's name for a title, with the words of a region of brain tumors.

    Examples
    --------
    >>> target_name("TC"), target_name("HGG")
    ('TC (tumor core)', 'HGG')
    """
    words = _REGION_WORDS.get(target)
    return f"{target} ({words})" if words else target


def strongest(maps: Sequence[HeatMap]) -> str | None:
    """Return the modality with the largest share, summed over all maps; None if none is known."""
    total: dict[str, float] = {}
    for heat in maps:
        for modality, share in heat.shares.items():
            total[modality] = total.get(modality, 0.0) + share
    return max(total, key=total.__getitem__, default=None)


def _montage(
    scan: Scan,
    maps: Sequence[HeatMap],
    target: str,
    name: str,
    blocks: Sequence[Block],
    cutter: Cutter,
    facts: Mapping[str, str],
    note: str,
) -> Montage:
    """Return the figure with title, legends and notes."""
    title = f"{scan.name}  ·  target {name}"
    for key in ("score", "probability"):
        title += f"  ·  {key} {facts[key]}" if key in facts else ""
    rest = {k: v for k, v in facts.items() if k not in ("score", "probability")}
    notes = notes_of(scan, maps, target, note)
    if cutter.specks:
        notes[0] += f" Parts and holes below {SPECK_MM2:g} mm² have no outline."
    legend = scan.legend(cutter.classes)
    return Montage(title, blocks, rest, legend, tuple(cutter.lines.items()), notes)


def check_modality(scan: Scan, modality: str) -> None:
    """Raise if the scan does not have a modality."""
    if modality not in scan.modalities:
        known = suggestion(modality, scan.modalities)
        raise OutputError(f"{scan.name}: unknown modality {modality!r}; {known}")


def convention(scan: Scan) -> str:
    """Return the note on left and right for a scan."""
    return CONVENTION if scan.laterality_known else UNKNOWN_SIDES


def voxels(scan: Scan) -> str:
    """Return the sentence on the voxel sizes of the scan and of the network's grid."""
    if not scan.laterality_known:
        return "The pixel size is unknown."
    own = f"Voxels of the scan {_edges(scan.spacing)} mm"
    if scan.network_spacing is None:
        return f"{own}."
    return f"{own}, of the network {_edges(scan.network_spacing)} mm."


def _edges(spacing: Sequence[float]) -> str:
    return " x ".join(f"{edge:.3g}" for edge in spacing)


def notes_of(scan: Scan, maps: Sequence[HeatMap], target: str, note: str) -> list[str]:
    """Return the notes below the figure."""
    notes = [f"{convention(scan)} {note} {voxels(scan)}"]
    if scan.obliquity:
        notes[0] += (
            f" The scan is tilted by {scan.obliquity:.0f}°: planes and letters follow its own axes."
        )
    kinds = {heat.kind for heat in maps}
    colors = []
    if "signed" in kinds:
        colors.append(f"Red is evidence for {target}, blue is evidence against it.")
    if "evidence" in kinds:
        names = _titles(maps, "evidence")
        colors.append(f"{names}: evidence for {target} only; evidence against it is cut off.")
    if "magnitude" in kinds:
        names = _titles(maps, "magnitude")
        colors.append(f"{names} (green): the size of the effect, without its sign.")
    if any(heat.kind == "signed" and heat.quantity == "gradient" for heat in maps):
        colors.append("Gradients: at a red voxel, more signal would raise the target.")
    if local := [heat.title for heat in maps if heat.where_only]:
        place = place_in_words(scan.target_mask_name)
        colors.append(
            f"{', '.join(local)}: zero outside {place} by construction, so the map shows where the "
            "target is, not why."
        )
    if any(heat.shares for heat in maps):
        colors.append("Percentages: the modality's share of the map, of absolute values.")
    if colors:
        notes.append(" ".join(colors))
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


def _titles(maps: Sequence[HeatMap], kind: Kind) -> str:
    return ", ".join(heat.title for heat in maps if heat.kind == kind)
