"""Figure of panels in rows and columns at one anatomical scale, with color bars and notes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from neuroxai.render.colors import Limits
from neuroxai.render.sheet import PAD, Footer, Header, Sheet, clean, save_figure, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 2560  # px
MIN_WIDTH = 1600  # px, enough for title and notes
LEFT, RIGHT, GAP = 70, 28, 8  # px
CELL, GRID_HEIGHT = 380, 1900  # px, maximum panel width and grid height


@dataclass(frozen=True, eq=False)
class Row:
    """Row of panels: label, panel size ``extent`` (width, height) in mm, and direction letters."""

    label: str
    extent: tuple[float, float]
    letters: tuple[str, str, str, str]


@dataclass(frozen=True, eq=False)
class Panel:
    """Image layers of a panel: gray scan, heat map and labels, or a remark in place of a map.

    All images have rows from the top; ``gray`` is in 0…1 and ``labels`` is RGBA.
    """

    gray: NDArray[Any] | None = None
    heat: NDArray[Any] | None = None
    opacity: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None
    remark: str = ""


@dataclass(frozen=True, eq=False)
class Column:
    """Column of panels with its title and the limits of its color bar."""

    title: str
    panels: Sequence[Panel]
    limits: Limits | None = None


@dataclass(frozen=True, eq=False)
class Montage:
    """Complete figure; :meth:`save` writes it as PNG.

    ``legend`` maps the class indices in the figure to their names.
    """

    title: str
    rows: Sequence[Row]
    columns: Sequence[Column]
    facts: Mapping[str, str] = field(default_factory=dict)
    legend: Mapping[int, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def figure(self) -> Figure:
        """Return the figure."""
        cell, scale = self._scale()
        heights = [row.extent[1] * scale for row in self.rows]
        grid = len(self.columns) * (cell + GAP) - GAP
        width = int(max(MIN_WIDTH, LEFT + grid + RIGHT))
        room = width - 2 * PAD
        header = Header(self.title, self.facts, room)
        footer = Footer(self.notes, room)
        titles = [wrap(column.title, cell, 12, lines=3) for column in self.columns]
        bars = any(column.limits for column in self.columns)
        top = PAD + header.height + 14 + 25 * max(map(len, titles))
        below = (84 if bars else 12) + (40 if self.legend else 0)
        height = int(top + sum(heights) + GAP * (len(heights) - 1) + below + footer.height)

        sheet = Sheet.blank(width, height)
        header.write(sheet)
        left = LEFT + max(0.0, (width - LEFT - grid - RIGHT) / 2)
        for number, column in enumerate(self.columns):
            x = left + number * (cell + GAP)
            for line, text in enumerate(reversed(titles[number])):
                sheet.write(
                    x + cell / 2, top - 28 - 25 * line, text, size=9, weight="bold", ha="center"
                )
            y: float = top
            for row, panel, high in zip(self.rows, column.panels, heights, strict=True):
                wide = row.extent[0] * scale
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
                sheet.color_bar(column.limits, x + 0.08 * cell, y + 4, 0.84 * cell)
        y = top + sum(heights) + GAP * (len(heights) - 1) + (84 if bars else 12)
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
        across = max(row.extent[0] for row in self.rows)
        upward = sum(row.extent[1] for row in self.rows)
        count = len(self.columns)
        cell = min(CELL, (WIDTH - LEFT - RIGHT - GAP * (count - 1)) / count)
        scale = min(cell / across, GRID_HEIGHT / upward)
        return cell, scale


def draw_panel(axes: Axes, panel: Panel, row: Row, limits: Limits | None, *, first: bool) -> None:
    """Draw one panel, with pixels in the aspect ratio of the voxels."""
    from matplotlib import patheffects

    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor("#E8E8E8" if panel.remark else "black")
    wide, high = row.extent
    place: dict[str, Any] = {
        "extent": (0, wide, high, 0), "aspect": "auto", "interpolation": "nearest",
    }  # fmt: skip
    if panel.gray is not None:
        axes.imshow(panel.gray, cmap="gray", vmin=0, vmax=1, **place)
    if panel.heat is not None and limits is not None:
        axes.imshow(
            panel.heat, cmap=limits.cmap, vmin=limits.vmin, vmax=limits.vmax,
            alpha=panel.opacity, **place,
        )  # fmt: skip
    if panel.labels is not None:
        axes.imshow(panel.labels, **place)
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
    if panel.remark:
        axes.text(
            0.5, 0.62, panel.remark, ha="center", va="center", transform=axes.transAxes,
            fontsize=9, color="#A00000", parse_math=False,
        )  # fmt: skip
