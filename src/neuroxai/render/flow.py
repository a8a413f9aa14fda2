"""The information flow through a network: encoder down, bottom, decoder up.

After Fig. 5 of Zeineldin et al. 2022, doi:10.1007/s11548-022-02619-x, with every layer's name,
resolution and numbers, the sign kept, and sides lettered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import OutputError, suggestion
from neuroxai.render.colors import PERCENTILE, Limits, color_limits, gray_window, label_layer
from neuroxai.render.figures import axial_slice, convention
from neuroxai.render.montage import Panel, Row, draw_panel
from neuroxai.render.planes import AXIAL, NO_LETTERS, Box, brain_box, crop
from neuroxai.render.scan import Scan, depth
from neuroxai.render.sheet import PAD, Footing, Heading, Sheet, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = 236  # px, a panel's width
GAP, LINE = 10, 21  # px
AISLE = 56  # px, between the way down and the way up
WIDEST = 9  # panels side by side on one way
_NAME = 18  # letters of a layer's name beside its number


@dataclass(frozen=True, eq=False)
class FlowPanel:
    """One layer's map in the figure.

    Attributes
    ----------
    number, name
        The layer's place in the flow, from 1, and its dotted name.
    shape
        ``(C, *S)`` of its output.
    picture
        The map's shown axial slice, ``(X, Y)`` on the scan's grid; None where there is no map.
    lines
        What is said below it, a short line each.
    missing
        Why there is no map, where there is none.
    """

    number: int
    name: str
    shape: tuple[int, ...]
    picture: NDArray[Any] | None
    lines: tuple[str, ...] = ()
    missing: str = "not on the\ntarget's way"


def draw_flow(
    scan: Scan,
    panels: Sequence[FlowPanel],
    target: str,
    path: Path,
    *,
    modality: str,
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Draw every layer's map over one axial slice, a row for each resolution.

    The way down stands on the left, the way up on the right; above them the scan itself with
    prediction and truth. Every panel has colors of its own, as layers have scales of their own.

    Raises
    ------
    OutputError
        If there is nothing to draw, or the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> flair = np.zeros((6, 8, 5)); flair[1:5, 1:7] = 1.0
    >>> panel = FlowPanel(1, "encoder", (4, 6, 8, 5), flair[..., 2] - 0.5, ("WT 12 %",))
    >>> out = Path(tempfile.mkdtemp()) / "flow.png"
    >>> draw_flow(Scan("case", {"FLAIR": flair}), [panel], "WT", out, modality="FLAIR").name
    'flow.png'
    """
    if not panels:
        raise OutputError(f"{scan.name}: no layer has a map, there is no flow to draw")
    if modality not in scan.modalities:
        known = suggestion(modality, scan.modalities)
        raise OutputError(f"{scan.name}: there is no modality {modality!r}; {known}")
    plan = _Plan(scan, panels, target, modality, facts or {})
    return save_figure(partial(plan.figure), path)


def levels(shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """Return how often each grid ``(C, *S)`` was halved against the finest one, rounded.

    Examples
    --------
    >>> levels([(4, 8, 8), (8, 4, 4), (8, 2, 2)])
    [0, 1, 2]
    """
    cells = np.array([float(np.prod(shape[1:])) for shape in shapes])
    axes = np.array([len(shape) - 1 for shape in shapes])
    found: list[int] = np.rint(np.log2(cells.max() / cells) / axes).astype(int).tolist()
    return found


def places(shapes: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, int]], int]:
    """Return each layer's line and column, and how many columns the way down takes.

    A layer is on the way down until the coarsest grid was last seen, then on the way up. Each
    resolution has a line, or several where one does not hold its layers.

    Examples
    --------
    >>> places([(4, 8, 8), (8, 4, 4), (4, 8, 8), (2, 8, 8)])
    ([(0, 0), (1, 0), (0, 1), (0, 2)], 1)
    """
    deep = levels(shapes)
    last = max(place for place, level in enumerate(deep) if level == max(deep))
    ways = [int(place > last) for place in range(len(deep))]
    members: dict[tuple[int, int], list[int]] = {}
    for place, key in enumerate(zip(deep, ways, strict=True)):
        members.setdefault(key, []).append(place)
    left = min(WIDEST, max(len(found) for (_, way), found in members.items() if way == 0))
    where: dict[int, tuple[int, int]] = {}
    line = 0
    for level in sorted(set(deep)):
        taken = 1
        for way, first, room in ((0, 0, left), (1, left, WIDEST)):
            for count, place in enumerate(members.get((level, way), [])):
                where[place] = (line + count // room, first + count % room)
                taken = max(taken, count // room + 1)
        line += taken
    return [where[place] for place in range(len(deep))], left


class _Plan:
    """The figure's measures, worked out once."""

    def __init__(
        self,
        scan: Scan,
        panels: Sequence[FlowPanel],
        target: str,
        modality: str,
        facts: Mapping[str, str],
    ) -> None:
        self._scan, self._panels, self._modality = scan, panels, modality
        self._index, reason = axial_slice(scan, [], target)
        self._box: Box = crop(brain_box(scan.modalities.values(), scan.spacing), AXIAL)
        self._gray = self._shade()
        extent = (
            self._gray.shape[1] * scan.spacing[0],
            self._gray.shape[0] * scan.spacing[1],
        )
        self._row = Row("", extent, AXIAL.letters if scan.laterality_known else NO_LETTERS)
        self._high = CELL * extent[1] / extent[0]
        self._places, self._left = places([panel.shape for panel in panels])
        columns = 1 + max(column for _, column in self._places)
        self._width = max(1500, int(2 * PAD + columns * (CELL + GAP) + AISLE))
        room = self._width - 2 * PAD
        title = f"{scan.name}  ·  target {target}  ·  information flow"
        self._heading = Heading(title, facts, room)
        x, y, z = scan.spacing
        notes = (
            f"{convention(scan)} {modality}, axial slice {self._index} (of {depth(scan)}, from 0 "
            f"at the feet): {reason}. Voxels {x:g} x {y:g} x {z:g} mm.",
            "Each panel: the signed class activation map of one layer, its numbers of filters and "
            "cells below. Red speaks for the target, blue against it; the colors of each panel "
            f"end at its own {PERCENTILE:g}th percentile of |value| in this slice, so panels "
            "cannot be compared by color. For it: how much of the whole volume's evidence, both "
            "signs together, is for the target; the shares below are of that evidence alone.",
        )
        self._footing = Footing(notes, room)

    def figure(self) -> Figure:
        """Draw it."""
        top = PAD + self._heading.height + 16
        step = self._high + LINE * (2 + max(len(panel.lines) for panel in self._panels)) + GAP
        first = top + self._high + 2 * LINE + 2 * GAP
        lines = 1 + max(line for line, _ in self._places)
        below = first + lines * step
        sheet = Sheet.blank(self._width, int(below + self._footing.height))
        self._heading.write(sheet)
        self._draw_input(sheet, top)
        for panel, (line, column) in zip(self._panels, self._places, strict=True):
            aisle = AISLE if column >= self._left else 0
            x = PAD + column * (CELL + GAP) + aisle
            self._draw_layer(sheet, panel, x, first + line * step)
        self._footing.write(sheet, below)
        return sheet.figure

    def _shade(self) -> NDArray[np.float64]:
        volume = self._scan.modalities[self._modality]
        low, high = gray_window(volume, float(volume[0, 0, 0]))
        return np.nan_to_num((self._cut(volume).astype(np.float64) - low) / (high - low), nan=0.0)

    def _cut(self, volume: NDArray[Any]) -> NDArray[Any]:
        index = 0 if volume.shape[2] == 1 else self._index
        return AXIAL.cut(volume[self._box], index)

    def _draw_input(self, sheet: Sheet, top: float) -> None:
        x: float = PAD
        shown: list[tuple[str, NDArray[Any] | None]] = [(self._modality, None)]
        shown += [("prediction", self._scan.prediction), ("truth", self._scan.truth)]
        classes: set[int] = set()
        for title, labels in shown:
            if labels is None and title != self._modality:
                continue
            layer = None if labels is None else self._cut(labels)
            classes.update(() if layer is None else (int(v) for v in np.unique(layer) if v))
            panel = Panel(gray=self._gray, labels=None if layer is None else label_layer(layer))
            axes = sheet.axes(x, top, CELL, self._high)
            draw_panel(axes, panel, self._row, None, first=labels is None)
            sheet.write(x, top + self._high + 4, title, size=9, weight="bold")
            x += CELL + GAP
        # The scale of every panel, in its own units.
        limits = Limits(-1.0, 1.0, "RdBu_r")
        sheet.bar(limits, x + 30, top + 20, CELL, words=("against", "0", "for"))
        sheet.legend(self._scan.legend(classes), top + 90, x + 30, lines=3)

    def _draw_layer(self, sheet: Sheet, panel: FlowPanel, x: float, y: float) -> None:
        drawn = self._overlay(panel)
        limits = None if drawn.heat is None else color_limits(drawn.heat, signed=True)
        draw_panel(sheet.axes(x, y, CELL, self._high), drawn, self._row, limits, first=False)
        cells = "×".join(str(n) for n in panel.shape[1:])
        said = (
            f"L{panel.number} {_shortened(panel.name)}",
            f"{panel.shape[0]} filters, {cells}",
            *panel.lines,
        )
        for down, line in enumerate(said):
            weight = "bold" if down == 0 else "normal"
            sheet.write(x, y + self._high + 3 + LINE * down, line, size=7.6, weight=weight)

    def _overlay(self, panel: FlowPanel) -> Panel:
        if panel.picture is None:
            return Panel(remark=panel.missing)
        heat = AXIAL.cut(panel.picture[self._box[:2]][:, :, None], 0)
        if not np.isfinite(heat).all():
            return Panel(gray=self._gray, remark="not finite")
        if not heat.any():
            return Panel(gray=self._gray, remark="zero in\nthis slice")
        opacity = 0.8 * color_limits(heat, signed=True).share(heat)
        return Panel(gray=self._gray, heat=heat, opacity=opacity)


def _shortened(name: str) -> str:
    """Return the end of a dotted name: what tells layers apart stands there."""
    return name if len(name) <= _NAME else f"…{name[1 - _NAME :]}"
