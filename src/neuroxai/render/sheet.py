"""A blank sheet addressed in px, with what stands at the head and foot of every one."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.files.atomic import replaced_whole
from neuroxai.render.colors import LABEL_COLORS, Limits, color_index

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160
PAD = 24  # px


class Heading:
    """A sheet's title and the facts below it, in lines that fit ``room`` px."""

    def __init__(self, title: str, facts: Mapping[str, str], room: float) -> None:
        self._titles = wrap(title, room, 21, lines=3)
        self._facts = wrap("   ·   ".join(f"{k}: {v}" for k, v in facts.items()), room, 11)

    @property
    def height(self) -> int:
        """Px that it takes."""
        return 42 * len(self._titles) + 28 * len(self._facts)

    def write(self, sheet: Sheet) -> None:
        """Write it at the top of the sheet."""
        for down, title in enumerate(self._titles):
            sheet.write(PAD, PAD + 42 * down, title, size=14, weight="bold")
        for down, fact in enumerate(self._facts):
            sheet.write(PAD, PAD + 42 * len(self._titles) + 28 * down, fact, size=9.5)


class Footing:
    """The notes at a sheet's foot, and that it is not for clinical use."""

    def __init__(self, notes: Sequence[str], room: float) -> None:
        self._lines = [line for note in notes for line in wrap(note, room, 10.5)]

    @property
    def height(self) -> int:
        """Px that it takes, the margin below it included."""
        return 24 * len(self._lines) + 40 + PAD

    def write(self, sheet: Sheet, y: float) -> None:
        """Write it from ``y`` px down."""
        for down, line in enumerate(self._lines):
            sheet.write(PAD, y + 24 * down, line, size=8.5, color="#333333")
        end = y + 24 * len(self._lines) + 4
        sheet.write(PAD, end, NOT_FOR_CLINICAL_USE, size=10.5, weight="bold", color="#A00000")


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

    def legend(self, classes: Mapping[int, str], y: float, x: float, *, lines: int = 1) -> None:
        """Explain the colors of classes, by their index, in so many lines; say how many more."""
        start = x
        for number, (index, name) in enumerate(classes.items()):
            text = _TISSUES.get(name, clean(name))
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


_TISSUES = {
    "NCR": "necrosis (NCR)", "ED": "edema (ED)", "ET": "enhancing tumor (ET)",
    "RC": "resection cavity (RC)",
}  # fmt: skip


def clean(text: str) -> str:
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
    return textwrap.wrap(clean(text), max(8, int(room / letter)), max_lines=lines, placeholder=" …")
