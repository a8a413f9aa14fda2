"""A sheet of panels: rows and columns of one anatomical scale, color bars, facts and notes."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.atomic import replaced_whole
from neuroxai.render.colors import LABEL_COLORS, LABELS, Limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DISCLAIMER = "Research use only, not for clinical use"
DPI = 160
WIDTH = 2560  # px
NARROW = 1600  # px, the least width, so that title and notes have room
LEFT, RIGHT, GAP, PAD = 70, 28, 8, 24  # px
CELL, GRID_HEIGHT = 380, 1900  # px, the most a panel may be wide and a grid be high


@dataclass(frozen=True, eq=False)
class Row:
    """One row: its name, the gray values' window, and the patient's sides at the edges.

    ``extent`` is the panels' size ``(width, height)`` in mm.
    """

    label: str
    extent: tuple[float, float]
    letters: tuple[str, str, str, str]


@dataclass(frozen=True, eq=False)
class Panel:
    """What is laid on one another: gray scan, heat, labels, and a remark where there is no map.

    All pictures have rows from the top; ``gray`` is in 0…1, ``labels`` holds RGBA.
    """

    gray: NDArray[Any] | None = None
    heat: NDArray[Any] | None = None
    opacity: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None
    remark: str = ""


@dataclass(frozen=True, eq=False)
class Column:
    """One column of panels, its heading, and the limits its color bar shows."""

    title: str
    panels: Sequence[Panel]
    limits: Limits | None = None


@dataclass(frozen=True, eq=False)
class Montage:
    """A whole sheet; :meth:`save` writes it as a PNG.

    ``legend`` holds the class indices whose colors are explained.
    """

    title: str
    rows: Sequence[Row]
    columns: Sequence[Column]
    facts: Mapping[str, str] = field(default_factory=dict)
    legend: Sequence[int] = ()
    notes: Sequence[str] = ()

    def figure(self) -> Figure:
        """Lay the sheet out."""
        cell, scale = self._scale()
        heights = [row.extent[1] * scale for row in self.rows]
        grid = len(self.columns) * (cell + GAP) - GAP
        width = int(max(NARROW, LEFT + grid + RIGHT))
        room = width - 2 * PAD
        titles = wrap(self.title, room, 21, lines=3)
        facts = wrap("   ·   ".join(f"{k}: {v}" for k, v in self.facts.items()), room, 11)
        notes = [line for note in self.notes for line in wrap(note, room, 10.5)]
        headings = [wrap(column.title, cell, 12, lines=3) for column in self.columns]
        bars = any(column.limits for column in self.columns)
        top = PAD + 42 * len(titles) + 28 * len(facts) + 14 + 25 * max(map(len, headings))
        below = (84 if bars else 12) + (40 if self.legend else 0) + 24 * len(notes) + 34
        height = int(top + sum(heights) + GAP * (len(heights) - 1) + below + PAD)

        sheet = Sheet.blank(width, height)
        for down, title in enumerate(titles):
            sheet.write(PAD, PAD + 42 * down, title, size=14, weight="bold")
        for at, fact in enumerate(facts):
            sheet.write(PAD, PAD + 42 * len(titles) + 28 * at, fact, size=9.5)
        left = LEFT + max(0.0, (width - LEFT - grid - RIGHT) / 2)
        for number, column in enumerate(self.columns):
            x = left + number * (cell + GAP)
            for up, words in enumerate(reversed(headings[number])):
                sheet.write(
                    x + cell / 2, top - 28 - 25 * up, words, size=9, weight="bold", ha="center"
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
                        textwrap.shorten(_clean(row.label), 24, placeholder=" …"),
                        size=11 if len(row.label) < 12 else 8,
                        weight="bold",
                        ha="right",
                        va="center",
                        rotation=90,
                    )
                y += high + GAP
            if column.limits:
                sheet.bar(column.limits, x + 0.08 * cell, y + 4, 0.84 * cell)
        y = top + sum(heights) + GAP * (len(heights) - 1) + (84 if bars else 12)
        if self.legend:
            sheet.legend(self.legend, y)
            y += 40
        for down, note in enumerate(notes):
            sheet.write(PAD, y + 24 * down, note, size=8.5, color="#333333")
        y += 24 * len(notes) + 4
        sheet.write(PAD, y, DISCLAIMER, size=10.5, weight="bold", color="#A00000")
        return sheet.figure

    def save(self, path: Path) -> Path:
        """Write the sheet as a PNG, whole or not at all; equal sheets give equal bytes.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        return save_figure(self.figure, path)

    def _scale(self) -> tuple[float, float]:
        """Return a column's width in px and the scale in px per mm, the same for all panels."""
        across = max(row.extent[0] for row in self.rows)
        upward = sum(row.extent[1] for row in self.rows)
        count = len(self.columns)
        cell = min(CELL, (WIDTH - LEFT - RIGHT - GAP * (count - 1)) / count)
        scale = min(cell / across, GRID_HEIGHT / upward)
        return cell, scale


def save_figure(make: Callable[[], Figure], path: Path) -> Path:
    """Write a figure as a PNG, whole or not at all, whatever style the user's settings hold."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path = Path(path)
    plain = {k: v for k, v in mpl.rcParamsDefault.items() if not k.startswith("backend")}
    with mpl.rc_context(plain), replaced_whole(path) as temporary:
        canvas = FigureCanvasAgg(make())
        canvas.print_png(str(temporary), metadata={"Software": None})
    return path


class Sheet:
    """A figure addressed in px from its top left corner."""

    def __init__(self, figure: Figure, width: int, height: int) -> None:
        self.figure, self.width, self.height = figure, width, height

    @classmethod
    def blank(cls, width: int, height: int) -> Sheet:
        """Return an empty sheet; needs no display and touches no state of pyplot."""
        from matplotlib.figure import Figure

        return cls(Figure(figsize=(width / DPI, height / DPI), dpi=DPI), width, height)

    def axes(self, x: float, y: float, wide: float, high: float) -> Axes:
        """Return axes at a place."""
        box = (
            x / self.width,
            1 - (y + high) / self.height,
            wide / self.width,
            high / self.height,
        )
        return self.figure.add_axes(box)

    def write(self, x: float, y: float, text: str, *, size: float, **style: Any) -> None:
        """Write a text, by default from its top left corner."""
        style = {"va": "top", **style}
        # A case's name may hold a dollar sign; it is never mathematics.
        self.figure.text(
            x / self.width, 1 - y / self.height, text, fontsize=size, parse_math=False, **style
        )

    def bar(
        self,
        limits: Limits,
        x: float,
        y: float,
        wide: float,
        words: tuple[str, str, str] | None = None,
    ) -> None:
        """Draw a color bar with its numbers: ends, zero, and one power of ten for all.

        With ``words``, those stand at the low end, the middle and the high end instead.
        """
        power = int(np.floor(np.log10(limits.vmax)))
        power = 0 if -2 <= power <= 2 or power < -300 else power
        top = f"{limits.vmax / 10.0**power:.3g}"
        axes = self.axes(x, y, wide, 14)
        axes.imshow(np.linspace(0, 1, 256)[None], cmap=limits.cmap, aspect="auto")
        axes.set_yticks([])
        axes.set_xticks([])
        ends = [(0.0, "left", "0"), (1.0, "right", top)]
        if limits.vmin < 0:
            ends = [(0.0, "left", f"\N{MINUS SIGN}{top}"), (0.5, "center", "0"), ends[1]]
        if words:
            ends = list(zip((0.0, 0.5, 1.0), ("left", "center", "right"), words, strict=True))
        for share, side, text in ends:
            self.write(x + share * wide, y + 18, text, size=7.5, ha=side)
        if power:
            raised = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
            times = f"\N{MULTIPLICATION SIGN}10{raised}"
            self.write(x + wide / 2, y + 40, times, size=7.5, ha="center")

    def legend(self, classes: Sequence[int], y: float, x: float = LEFT) -> None:
        """Explain the colors of classes in one line."""
        names = {
            "NCR": "necrosis (NCR)", "ED": "edema (ED)",
            "ET": "enhancing tumor (ET)", "RC": "resection cavity (RC)",
        }  # fmt: skip
        for index in classes:
            patch = self.axes(x, y + 3, 22, 22)
            patch.set_facecolor(LABEL_COLORS[index])
            patch.set_xticks([])
            patch.set_yticks([])
            text = names[LABELS[index]]
            self.write(x + 32, y + 3, text, size=9)
            x += 32 + 12 * len(text) + 36


def draw_panel(axes: Axes, panel: Panel, row: Row, limits: Limits | None, *, first: bool) -> None:
    """Draw one panel; pixels are as large as the voxels in mm."""
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


def _clean(text: str) -> str:
    """Return the text in one line, with a question mark for each letter the font lacks."""
    from matplotlib import font_manager

    fonts = [
        font_manager.get_font(font_manager.findfont(f"DejaVu Sans:{weight}"))
        for weight in ("regular", "bold")
    ]
    return "".join(
        c if c.isprintable() and all(font.get_char_index(ord(c)) for font in fonts) else "?"
        for c in " ".join(text.split())
    )


def wrap(text: str, room: float, letter: float, lines: int = 99) -> list[str]:
    """Break a text into lines that fit ``room`` px at about ``letter`` px a letter."""
    return textwrap.wrap(
        _clean(text), max(8, int(room / letter)), max_lines=lines, placeholder=" …"
    )
