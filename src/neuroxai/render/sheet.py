"""Figure canvas with pixel coordinates, and the header and footer of every figure."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.files.atomic import atomic_path
from neuroxai.render.colors import LABEL_COLORS, Kind, Limits, color_index

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160
PAD = 24  # px
BAR = 118  # px, height of a color bar with its labels

BAR_WORDS: Mapping[Kind, tuple[str, str]] = MappingProxyType(
    {
        "signed": ("against", "for"),
        "evidence": ("", "for"),
        "magnitude": ("", "large"),
        "activation": ("negative", "positive"),
    }
)
"""Meaning of the low and the high end of a color bar."""


@dataclass(frozen=True)
class Line:
    """Color and dashes of an outline."""

    color: str
    dashes: str = "solid"

    @property
    def style(self) -> dict[str, Any]:
        """Keyword arguments of matplotlib's lines."""
        return {"color": self.color, "linestyle": self.dashes, "linewidth": 0.7}


class Header:
    """Title and facts of a figure, wrapped to ``room`` px."""

    def __init__(self, title: str, facts: Mapping[str, str], room: float) -> None:
        self._titles = wrap(title, room, 21, lines=3)
        self._facts = wrap("   ·   ".join(f"{k}: {v}" for k, v in facts.items()), room, 12)

    @property
    def height(self) -> int:
        """Height in px."""
        return 42 * len(self._titles) + 28 * len(self._facts)

    def write(self, sheet: Sheet) -> None:
        """Write the header at the top of a sheet."""
        for line, title in enumerate(self._titles):
            sheet.write(PAD, PAD + 42 * line, title, size=14, weight="bold")
        for line, fact in enumerate(self._facts):
            sheet.write(PAD, PAD + 42 * len(self._titles) + 28 * line, fact, size=9.5)


class Footer:
    """Notes of a figure and the disclaimer on clinical use, wrapped to ``room`` px."""

    def __init__(self, notes: Sequence[str], room: float) -> None:
        self._lines = [line for note in notes for line in wrap(note, room, 10.5)]

    @property
    def height(self) -> int:
        """Height in px, including the bottom margin."""
        return 24 * len(self._lines) + 40 + PAD

    def write(self, sheet: Sheet, y: float) -> None:
        """Write the footer, starting at ``y`` px."""
        for number, line in enumerate(self._lines):
            sheet.write(PAD, y + 24 * number, line, size=8.5, color="#333333")
        end = y + 24 * len(self._lines) + 4
        sheet.write(PAD, end, NOT_FOR_CLINICAL_USE, size=10.5, weight="bold", color="#A00000")


def save_figure(make: Callable[[], Figure], path: Path) -> Path:
    """Write a figure as PNG, atomically and independent of the user's matplotlib settings."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path = Path(path)
    defaults = {k: v for k, v in mpl.rcParamsDefault.items() if not k.startswith("backend")}
    with mpl.rc_context(defaults), atomic_path(path) as temporary:
        canvas = FigureCanvasAgg(make())
        canvas.print_png(str(temporary), metadata={"Software": None})
    return path


class Sheet:
    """Figure with coordinates in px from its top left corner."""

    def __init__(self, figure: Figure, width: int, height: int) -> None:
        self.figure, self.width, self.height = figure, width, height

    @classmethod
    def blank(cls, width: int, height: int) -> Sheet:
        """Return an empty sheet, without a display and without pyplot state."""
        from matplotlib.figure import Figure

        return cls(Figure(figsize=(width / DPI, height / DPI), dpi=DPI), width, height)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Add axes with the given position and size."""
        box = (
            x / self.width,
            1 - (y + height) / self.height,
            width / self.width,
            height / self.height,
        )
        return self.figure.add_axes(box)

    def write(self, x: float, y: float, text: str, *, size: float, **style: Any) -> None:
        """Write text; by default, the position is that of its top left corner."""
        style = {"va": "top", **style}
        # Case names may contain dollar signs, which do not denote mathematics here.
        self.figure.text(
            x / self.width, 1 - y / self.height, text, fontsize=size, parse_math=False, **style
        )

    def color_bar(
        self,
        limits: Limits,
        x: float,
        y: float,
        width: float,
        *,
        unit: str = "",
        numbers: bool = True,
    ) -> None:
        """Draw a color bar in :data:`BAR` px of height.

        Below it are its ends and zero, what the ends mean, and the unit with a common power of ten.

        Parameters
        ----------
        unit
            Unit of the values, wrapped to two lines.
        numbers
            Whether to write the ends; False for a bar that stands for several scales.
        """
        power = int(np.floor(np.log10(limits.vmax)))
        power = 0 if -2 <= power <= 2 or power < -300 else power
        top = f"{limits.vmax / 10.0**power:.3g}"
        axes = self.axes(x, y, width, 14)
        axes.set_facecolor("black")
        ramp = np.linspace(limits.vmin, limits.vmax, 256)[None]
        axes.imshow(limits.rgba(ramp), aspect="auto", interpolation="nearest")
        axes.set_yticks([])
        axes.set_xticks([])
        signed = limits.vmin < 0
        if numbers:
            low = f"\N{MINUS SIGN}{top}" if signed else "0"
            self._ends(x, y + 18, width, (low, "0" if signed else "", top))
        low, high = BAR_WORDS[limits.kind]
        self._ends(x, y + (40 if numbers else 18), width, (low if signed else "", "", high))
        if power and numbers:
            exponent = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
            unit = f"\N{MULTIPLICATION SIGN}10{exponent} {unit}".rstrip()
        for line, text in enumerate(wrap(unit, 1.15 * width, 9, lines=2)):
            self.write(x + width / 2, y + 62 + 20 * line, text, size=7.5, ha="center")

    def _ends(self, x: float, y: float, width: float, texts: tuple[str, str, str]) -> None:
        """Write texts below the left end, the center and the right end of a bar."""
        for fraction, side, text in zip(
            (0, 0.5, 1), ("left", "center", "right"), texts, strict=True
        ):
            if text:
                self.write(x + fraction * width, y, text, size=7.5, ha=side)

    def lines(self, lines: Sequence[tuple[str, Line]], y: float, x: float) -> None:
        """Draw the legend of outlines, each on a dark patch."""
        for text, line in lines:
            patch = self.axes(x, y + 3, 40, 22)
            patch.set_facecolor("#404040")
            patch.set_xticks([])
            patch.set_yticks([])
            patch.plot([0.05, 0.95], [0.5, 0.5], **line.style)
            patch.set_xlim(0, 1)
            patch.set_ylim(0, 1)
            self.write(x + 50, y + 3, clean(text), size=9)
            x += 50 + 12 * len(text) + 36

    def legend(self, classes: Mapping[int, str], y: float, x: float, *, lines: int = 1) -> None:
        """Draw the legend of class colors in at most ``lines`` lines, with a count of the rest."""
        start = x
        for number, (index, name) in enumerate(classes.items()):
            text = _CLASS_NAMES.get(name, clean(name))
            width = 32 + 12 * len(text) + 36
            if x + width > self.width - PAD and number and lines > 1:
                x, y, lines = start, y + 34, lines - 1
            elif x + width > self.width - PAD and number:
                self.write(x, y + 3, f"and {len(classes) - number} more", size=9)
                return
            patch = self.axes(x, y + 3, 22, 22)
            patch.set_facecolor(LABEL_COLORS[color_index(index)])
            patch.set_xticks([])
            patch.set_yticks([])
            self.write(x + 32, y + 3, text, size=9)
            x += width


_CLASS_NAMES = {
    "NCR": "necrosis (NCR)", "ED": "edema (ED)", "ET": "enhancing tumor (ET)",
    "RC": "resection cavity (RC)",
}  # fmt: skip


def clean(text: str) -> str:
    """Return the text on one line, with question marks for glyphs missing from the font."""
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
    """Wrap text to ``room`` px, at about ``letter`` px per character."""
    return textwrap.wrap(clean(text), max(8, int(room / letter)), max_lines=lines, placeholder=" …")
