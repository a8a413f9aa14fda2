"""Figure of the information flow through a network: encoder, bottleneck and decoder.

The layout follows Fig. 5 of Zeineldin et al. 2022, doi:10.1007/s11548-022-02619-x, with the name,
resolution and evidence of every layer, signed maps, and labeled directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import OutputError
from neuroxai.render.background import background_modality
from neuroxai.render.colors import PERCENTILE, Limits, color_limits
from neuroxai.render.cutter import Cut, Cutter
from neuroxai.render.figures import check_modality, convention, voxels
from neuroxai.render.focus import axial_slice
from neuroxai.render.montage import Column, Panel, draw_panel
from neuroxai.render.planes import AXIAL
from neuroxai.render.scan import Scan, depth
from neuroxai.render.sheet import PAD, Footer, Header, Sheet, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = 236  # px, width of a panel
GAP, LINE = 10, 21  # px
AISLE = 56  # px, between encoder and decoder
MAX_COLUMNS = 9  # per encoder or decoder
_NAME_LENGTH = 18  # characters of a layer name after its number


@dataclass(frozen=True, eq=False)
class FlowPanel:
    """Map of one layer in the figure.

    Attributes
    ----------
    number, name
        Position of the layer in the forward pass, from 1, and its dotted name.
    shape
        Shape ``(C, *S)`` of its output.
    picture
        Axial slice of the map, ``(X, Y)`` on the grid of the scan; None without a map.
    lines
        Short lines of text below the panel.
    missing
        Reason for a missing map.
    """

    number: int
    name: str
    shape: tuple[int, ...]
    picture: NDArray[Any] | None
    lines: tuple[str, ...] = ()
    missing: str = "no influence\non the target"


def draw_flow(
    scan: Scan,
    panels: Sequence[FlowPanel],
    target: str,
    path: Path,
    *,
    modality: str | None = None,
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Draw the maps of all layers over one axial slice, with one row per resolution.

    The encoder is on the left and the decoder on the right, below the scan with prediction and
    ground truth. Each panel has its own color scale, because the scales of layers differ.

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
        raise OutputError(f"{scan.name}: no layer has a map, so there is no flow to draw")
    shown = modality or background_modality(target, scan.modalities)
    check_modality(scan, shown)
    layout = _Layout(scan, panels, target, shown, facts or {})
    return save_figure(layout.figure, path)


def resolution_levels(shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """Return the number of halvings of each grid ``(C, *S)`` relative to the finest, rounded.

    Examples
    --------
    >>> resolution_levels([(4, 8, 8), (8, 4, 4), (8, 2, 2)])
    [0, 1, 2]
    """
    cells = np.array([float(np.prod(shape[1:])) for shape in shapes])
    axes = np.array([len(shape) - 1 for shape in shapes])
    found: list[int] = np.rint(np.log2(cells.max() / cells) / axes).astype(int).tolist()
    return found


def panel_positions(shapes: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, int]], int]:
    """Return the row and column of each layer, and the number of columns of the encoder.

    Layers up to the last one of the coarsest resolution belong to the encoder, all others to the
    decoder. Each resolution has one row, or several if its layers do not fit into one.

    Examples
    --------
    >>> panel_positions([(4, 8, 8), (8, 4, 4), (4, 8, 8), (2, 8, 8)])
    ([(0, 0), (1, 0), (0, 1), (0, 2)], 1)
    """
    levels = resolution_levels(shapes)
    bottom = max(index for index, level in enumerate(levels) if level == max(levels))
    members: dict[tuple[int, bool], list[int]] = {}
    for index, level in enumerate(levels):
        members.setdefault((level, index > bottom), []).append(index)
    left = min(MAX_COLUMNS, max(len(found) for (_, up), found in members.items() if not up))
    positions: dict[int, tuple[int, int]] = {}
    row = 0
    for level in sorted(set(levels)):
        rows = 1
        for up, first, columns in ((False, 0, left), (True, left, MAX_COLUMNS)):
            for count, index in enumerate(members.get((level, up), [])):
                positions[index] = (row + count // columns, first + count % columns)
                rows = max(rows, count // columns + 1)
        row += rows
    return [positions[index] for index in range(len(levels))], left


class _Layout:
    """Layout of the figure, computed once."""

    def __init__(
        self,
        scan: Scan,
        panels: Sequence[FlowPanel],
        target: str,
        modality: str,
        facts: Mapping[str, str],
    ) -> None:
        self._panels = panels
        index, reason = axial_slice(scan, [], target)
        self._scan = scan
        self._cut = Cut("", modality, AXIAL, index)
        self._cutter = Cutter(scan, target)
        self._gray = self._cutter.gray(self._cut)
        self._outlines = self._cutter.outlines(self._cut)
        (self._row,) = self._cutter.block([self._cut], []).rows
        self._height = CELL * self._row.extent[1] / self._row.extent[0]
        self._positions, self._left = panel_positions([panel.shape for panel in panels])
        columns = 1 + max(column for _, column in self._positions)
        self._width = max(1500, int(2 * PAD + columns * (CELL + GAP) + AISLE))
        room = self._width - 2 * PAD
        title = f"{scan.name}  ·  target {target}  ·  information flow"
        self._header = Header(title, facts, room)
        notes = (
            f"{convention(scan)} {modality}, axial slice {index} (of {depth(scan)}, from 0 "
            f"at the feet): {reason}. {voxels(scan)}",
            "Each panel shows the signed class activation map of one layer, with its number of "
            f"filters and grid size below. Red is evidence for {target}, blue is evidence against "
            f"it. The color scale of each panel ends at its own {PERCENTILE:g}th percentile of "
            "|value| in this slice, so colors of different panels cannot be compared.",
            "For the target: the part of all evidence, for and against, that speaks for it. "
            "In WT, TC, ET, in and outside the brain: the parts of the evidence for the target.",
        )
        self._footer = Footer(notes, room)

    def figure(self) -> Figure:
        """Return the figure."""
        top = PAD + self._header.height + 16
        step = self._height + LINE * (2 + max(len(panel.lines) for panel in self._panels)) + GAP
        first = top + self._height + 2 * LINE + 2 * GAP
        rows = 1 + max(row for row, _ in self._positions)
        bottom = first + rows * step
        sheet = Sheet.blank(self._width, int(bottom + self._footer.height))
        self._header.write(sheet)
        self._draw_input(sheet, top)
        for panel, (row, column) in zip(self._panels, self._positions, strict=True):
            aisle = AISLE if column >= self._left else 0
            x = PAD + column * (CELL + GAP) + aisle
            self._draw_layer(sheet, panel, x, first + row * step)
        self._footer.write(sheet, bottom)
        return sheet.figure

    def _draw_input(self, sheet: Sheet, top: float) -> None:
        x: float = PAD
        columns = [Column(self._cut.modality, [Panel(gray=self._gray)])]
        columns += self._cutter.labels([self._cut])
        for number, column in enumerate(columns):
            axes = sheet.axes(x, top, CELL, self._height)
            draw_panel(axes, column.panels[0], self._row, None, first=number == 0)
            sheet.write(x, top + self._height + 4, column.title, size=9, weight="bold")
            x += CELL + GAP
        # One color bar for all panels, without numbers, because each panel has its own scale.
        sheet.color_bar(Limits(-1.0, 1.0, "signed"), x + 30, top + 10, CELL, numbers=False)
        for number, line in enumerate(self._cutter.lines.items()):
            sheet.lines([line], top + 60 + 34 * number, x + 30)
        y = top + 60 + 34 * len(self._cutter.lines)
        sheet.legend(self._scan.legend(self._cutter.classes), y, x + 30, lines=3)

    def _draw_layer(self, sheet: Sheet, panel: FlowPanel, x: float, y: float) -> None:
        drawn, limits = self._overlay(panel)
        draw_panel(sheet.axes(x, y, CELL, self._height), drawn, self._row, limits, first=False)
        cells = "×".join(str(n) for n in panel.shape[1:])
        caption = (
            f"L{panel.number} {_shorten(panel.name)}",
            f"{panel.shape[0]} filters, {cells}",
            *panel.lines,
        )
        for number, line in enumerate(caption):
            weight = "bold" if number == 0 else "normal"
            sheet.write(x, y + self._height + 3 + LINE * number, line, size=7.6, weight=weight)

    def _overlay(self, panel: FlowPanel) -> tuple[Panel, Limits | None]:
        if panel.picture is None:
            return Panel(remark=panel.missing), None
        heat = self._cutter.cut(panel.picture[:, :, None], self._cut)
        if not np.isfinite(heat).all():
            return Panel(gray=self._gray, remark="not finite"), None
        if not heat.any():
            return Panel(gray=self._gray, remark="zero in\nthis slice"), None
        shown = Panel(gray=self._gray, heat=heat, outlines=self._outlines)
        return shown, color_limits(heat, "signed")


def _shorten(name: str) -> str:
    """Return the end of a dotted name, which distinguishes the layers of a network."""
    return name if len(name) <= _NAME_LENGTH else f"…{name[1 - _NAME_LENGTH :]}"
