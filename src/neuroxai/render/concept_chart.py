"""Chart of network dissection: the best filter of each layer for each concept, and its control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from neuroxai.core.errors import OutputError
from neuroxai.render.sheet import PAD, Footer, Header, Sheet, save_figure, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL, LINE, NAME = 58, 54, 150  # px

Scores = Mapping[tuple[str, str], tuple[float, float]]
"""Concept and layer to the best IoU of the network and of its control."""


def draw_concepts(
    groups: Mapping[str, Sequence[str]],
    layers: Sequence[str],
    scores: Scores,
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Draw a colored table with one row per concept and one column per layer.

    Parameters
    ----------
    groups
        Group title to its concepts.
    layers
        Layer names in forward order; the columns have their numbers.
    scores
        Best IoU of the network (upper number of a cell) and of the control (lower number). The
        color encodes the difference.

    Raises
    ------
    OutputError
        If there is nothing to draw, or the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> out = Path(tempfile.mkdtemp()) / "concepts.png"
    >>> draw_concepts({"Implicit": ["GM"]}, ["a"], {("GM", "a"): (0.6, 0.2)}, out, title="net").name
    'concepts.png'
    """
    if not layers or not any(groups.values()):
        raise OutputError(f"{path.name}: no concept or no layer, so there is nothing to draw")
    return save_figure(partial(_chart, groups, layers, scores, title, facts or {}), path)


def _chart(
    groups: Mapping[str, Sequence[str]],
    layers: Sequence[str],
    scores: Scores,
    title: str,
    facts: Mapping[str, str],
) -> Figure:
    width = max(1100, 2 * PAD + NAME + len(layers) * CELL)
    room = width - 2 * PAD
    header = Header(title, facts, room)
    note = (
        "Upper number: the best IoU in percent of any filter of the layer with the concept. Lower "
        "number: the same for the layer with shuffled weights, the level of chance. The green is "
        "darker the larger the difference; white is at or below chance. An IoU measures "
        "association and does not show that the network uses the filter."
    )
    footer = Footer([note], room)
    names = wrap("   ".join(f"L{n} {name}" for n, name in enumerate(layers, 1)), room, 9.6)
    top = PAD + header.height + 50
    lines = sum(len(concepts) for concepts in groups.values())
    body = lines * LINE + 34 * sum(1 for concepts in groups.values() if concepts)
    height = int(top + body + 20 + 22 * len(names) + 6 + footer.height)
    sheet = Sheet.blank(width, height)
    header.write(sheet)
    left = PAD + NAME
    for number in range(len(layers)):
        x = left + (number + 0.5) * CELL
        sheet.write(x, top - 26, f"L{number + 1}", size=8.5, ha="center", weight="bold")
    y: float = top
    for group, concepts in groups.items():
        if not concepts:
            continue
        sheet.write(PAD, y + 4, group, size=9.5, weight="bold")
        y += 34
        for concept in concepts:
            sheet.write(left - 12, y + LINE / 2, concept, size=10, ha="right", va="center")
            for number, layer in enumerate(layers):
                if (concept, layer) in scores:
                    _cell(sheet, left + number * CELL, y, *scores[concept, layer])
            y += LINE
    y += 20
    for number, text in enumerate(names):
        sheet.write(PAD, y + 22 * number, text, size=7.6, color="#333333")
    y += 22 * len(names) + 6
    footer.write(sheet, y)
    return sheet.figure


def _cell(sheet: Sheet, x: float, y: float, score: float, chance: float) -> None:
    excess = max(0.0, score - chance)
    axes = sheet.axes(x + 1, y + 1, CELL - 2, LINE - 2)
    # From white to dark green.
    axes.set_facecolor((1 - 0.95 * excess, 1 - 0.45 * excess, 1 - 0.75 * excess))
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color("#CCCCCC")
    dark = excess > 0.55
    ink = "white" if dark else "black"
    sheet.write(x + CELL / 2, y + 5, f"{100 * score:.0f}", size=9.5, ha="center", color=ink)
    faint = "#DDDDDD" if dark else "#666666"
    sheet.write(x + CELL / 2, y + 30, f"{100 * chance:.0f}", size=7.5, ha="center", color=faint)
