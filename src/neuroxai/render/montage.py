"""Figure of panels in rows and columns at one anatomical scale, with color bars and notes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.render.colors import FAINT, Limits
from neuroxai.render.sheet import BAR, PAD, Footer, Header, Line, Sheet, clean, save_figure, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 2560  # px
MIN_WIDTH = 1600  # px, enough for title and notes
LEFT, RIGHT, GAP = 70, 28, 8  # px
CELL, GRID_HEIGHT = 380, 1900  # px, maximum panel width and height of all panels
MIN_CELL = 240  # px, enough for the labels of a color bar
TITLE = 25  # px, a line of a column's title
HEADING = 40  # px, the title of a block


@dataclass(frozen=True, eq=False)
class Row:
    """Row of panels: label, panel size ``extent`` (width, height) in mm, and direction letters."""

    label: str
    extent: tuple[float, float]
    letters: tuple[str, str, str, str]


@dataclass(frozen=True, eq=False)
class Outline:
    """Outline of a mask with rows from the top."""

    mask: NDArray[np.bool_]
    line: Line


@dataclass(frozen=True, eq=False)
class Panel:
    """Image layers of a panel: gray scan, heat map, labels and outlines.

    All images have rows from the top; ``gray`` is in 0…1 and ``labels`` is RGBA. The scan is drawn
    faintly beneath a map.

    Attributes
    ----------
    remark
        Text in place of a map.
    corner
        Short text in the lower left corner.
    mark
        Text across the panel that qualifies all of it.
    """

    gray: NDArray[Any] | None = None
    heat: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None
    outlines: Sequence[Outline] = ()
    remark: str = ""
    corner: str = ""
    mark: str = ""


@dataclass(frozen=True, eq=False)
class Column:
    """Column of panels with its titles, and the limits and the unit of its color bar."""

    title: str
    panels: Sequence[Panel]
    limits: Limits | None = None
    unit: str = ""
    subtitle: str = ""


@dataclass(frozen=True, eq=False)
class Block:
    """Rows and columns of panels below a heading."""

    rows: Sequence[Row]
    columns: Sequence[Column]
    heading: str = ""

    @property
    def has_bars(self) -> bool:
        """Whether a column has a color bar."""
        return any(column.limits for column in self.columns)

    def titles(self, cell: float) -> list[list[tuple[str, str]]]:
        """Return the lines of each column's title, each with its weight."""
        return [
            [(line, "bold") for line in wrap(column.title, cell, 13, lines=3)]
            + [(line, "normal") for line in wrap(column.subtitle, cell, 12, lines=1)]
            for column in self.columns
        ]

    def head(self, cell: float) -> float:
        """Return the height above the panels in px."""
        lines = max(map(len, self.titles(cell)))
        return (HEADING if self.heading else 0) + 14 + TITLE * lines

    def height(self, cell: float, scale: float) -> float:
        """Return the height of the block in px, at ``scale`` px per mm."""
        panels = sum(row.extent[1] * scale + GAP for row in self.rows) - GAP
        return self.head(cell) + panels + (BAR if self.has_bars else 12)


@dataclass(frozen=True, eq=False)
class Montage:
    """Complete figure; :meth:`save` writes it as PNG.

    Attributes
    ----------
    blocks
        Blocks of panels, from top to bottom.
    legend
        Class indices in the figure to their names.
    lines
        Outlines in the figure and their names.
    """

    title: str
    blocks: Sequence[Block]
    facts: Mapping[str, str] = field(default_factory=dict)
    legend: Mapping[int, str] = field(default_factory=dict)
    lines: Sequence[tuple[str, Line]] = ()
    notes: Sequence[str] = ()

    def figure(self) -> Figure:
        """Return the figure."""
        cell, scale = self._scale()
        count = max(len(block.columns) for block in self.blocks)
        grid = count * (cell + GAP) - GAP
        width = int(max(MIN_WIDTH, LEFT + grid + RIGHT))
        room = width - 2 * PAD
        header = Header(self.title, self.facts, room)
        footer = Footer(self.notes, room)
        top = PAD + header.height
        blocks = sum(block.height(cell, scale) for block in self.blocks)
        below = (40 if self.legend else 0) + (40 if self.lines else 0)
        sheet = Sheet.blank(width, int(top + blocks + below + footer.height))
        header.write(sheet)
        left = LEFT + max(0.0, (width - LEFT - grid - RIGHT) / 2)
        y: float = top
        for block in self.blocks:
            _draw_block(sheet, block, left, y, cell, scale)
            y += block.height(cell, scale)
        if self.lines:
            sheet.lines(self.lines, y, LEFT)
            y += 40
        if self.legend:
            sheet.legend(self.legend, y, LEFT)
            y += 40
        footer.write(sheet, y)
        return sheet.figure

    def save(self, path: Path) -> Path:
        """Write the figure as PNG, atomically and with reproducible bytes.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        return save_figure(self.figure, path)

    def _scale(self) -> tuple[float, float]:
        """Return the column width in px and the scale of all panels in px per mm."""
        rows = [row for block in self.blocks for row in block.rows]
        across = max(row.extent[0] for row in rows)
        upward = sum(row.extent[1] for row in rows)
        count = max(len(block.columns) for block in self.blocks)
        cell = min(CELL, (WIDTH - LEFT - RIGHT - GAP * (count - 1)) / count)
        scale = min(cell / across, GRID_HEIGHT / upward)
        return max(MIN_CELL, across * scale), scale


def _draw_block(
    sheet: Sheet, block: Block, left: float, top: float, cell: float, scale: float
) -> None:
    if block.heading:
        sheet.write(left, top + 8, clean(block.heading), size=11, weight="bold")
    titles = block.titles(cell)
    first = top + block.head(cell)
    for number, column in enumerate(block.columns):
        x = left + number * (cell + GAP)
        for line, (text, weight) in enumerate(reversed(titles[number])):
            at = first - 28 - TITLE * line
            sheet.write(x + cell / 2, at, text, size=9, weight=weight, ha="center")
        y = first
        for row, panel in zip(block.rows, column.panels, strict=True):
            wide, high = (edge * scale for edge in row.extent)
            axes = sheet.axes(x + (cell - wide) / 2, y, wide, high)
            draw_panel(axes, panel, row, column.limits, first=number == 0)
            if number == 0:
                sheet.write(
                    left - 12,
                    y + high / 2,
                    textwrap.shorten(clean(row.label), 24, placeholder=" …"),
                    size=11 if len(row.label) < 12 else 8,
                    weight="bold",
                    ha="right",
                    va="center",
                    rotation=90,
                )
            y += high + GAP
        if column.limits:
            sheet.color_bar(column.limits, x + 0.08 * cell, y + 4, 0.84 * cell, unit=column.unit)


def draw_panel(axes: Axes, panel: Panel, row: Row, limits: Limits | None, *, first: bool) -> None:
    """Draw one panel, with pixels in the aspect ratio of the voxels."""
    from matplotlib import patheffects

    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor("#E8E8E8" if panel.remark and panel.gray is None else "black")
    wide, high = row.extent
    place: dict[str, Any] = {
        "extent": (0, wide, high, 0), "aspect": "auto", "interpolation": "nearest",
    }  # fmt: skip
    heat = panel.heat if limits is not None else None
    if panel.gray is not None:
        brightness = FAINT if heat is not None or panel.remark else 1.0
        axes.imshow(brightness * panel.gray.clip(0, 1), cmap="gray", vmin=0, vmax=1, **place)
    if heat is not None and limits is not None:
        axes.imshow(limits.rgba(heat), **place)
    if panel.labels is not None:
        axes.imshow(panel.labels, **place)
    for outline in panel.outlines:
        _draw_outline(axes, outline, row.extent)
    axes.set_xlim(0, wide)
    axes.set_ylim(high, 0)
    edges = [(0.03, 0.5, "left", "center"), (0.97, 0.5, "right", "center"),
             (0.5, 0.98, "center", "top"), (0.5, 0.02, "center", "bottom")]  # fmt: skip
    edge = [patheffects.withStroke(linewidth=2, foreground="black")]
    for letter, (x, y, ha, va) in list(zip(row.letters, edges, strict=True))[: 4 if first else 2]:
        axes.text(
            x, y, letter, ha=ha, va=va, transform=axes.transAxes, fontsize=9,
            fontweight="bold", color="white", path_effects=edge,
        )  # fmt: skip
    if panel.corner:
        axes.text(
            0.03, 0.02, panel.corner, ha="left", va="bottom", transform=axes.transAxes,
            fontsize=8, color="white", path_effects=edge, parse_math=False,
        )  # fmt: skip
    if panel.mark:
        axes.text(
            0.5, 0.25, textwrap.fill(panel.mark, 16), ha="center", va="center", rotation=20,
            transform=axes.transAxes, fontsize=10, fontweight="bold", color="white",
            path_effects=edge, parse_math=False,
        )  # fmt: skip
    if panel.remark:
        on_scan = panel.gray is not None
        axes.text(
            0.5, 0.62, panel.remark, ha="center", va="center", transform=axes.transAxes,
            fontsize=9, color="white" if on_scan else "#A00000", parse_math=False,
            path_effects=edge if on_scan else None,
        )  # fmt: skip


def _draw_outline(axes: Axes, outline: Outline, extent: tuple[float, float]) -> None:
    """Draw the outline of a mask along the edges of its pixels."""
    if not outline.mask.any():
        return
    rows, columns = outline.mask.shape
    # Contours run through the centers of pixels. On a grid twice as fine, with a margin of zeros,
    # they follow the edges of the pixels and close at the border of the image.
    fine = np.pad(np.kron(outline.mask, np.ones((2, 2))), 1)
    x = (np.arange(2 * columns + 2) - 0.5) / (2 * columns) * extent[0]
    y = (np.arange(2 * rows + 2) - 0.5) / (2 * rows) * extent[1]
    axes.contour(
        x, y, fine, levels=[0.5], colors=[outline.line.color],
        linewidths=outline.line.style["linewidth"], linestyles=[outline.line.dashes],
    )  # fmt: skip
