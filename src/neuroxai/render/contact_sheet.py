"""Contact sheet of all filters of a layer, sorted by importance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import OutputError
from neuroxai.render.colors import COLORS, PERCENTILE, Limits, color_limits
from neuroxai.render.figures import CONVENTION, UNKNOWN_SIDES
from neuroxai.render.montage import Panel, Row, draw_panel
from neuroxai.render.planes import AXIAL, NO_LETTERS
from neuroxai.render.sheet import PAD, Footer, Header, Sheet, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACROSS, DOWN = 8, 6
"""Filters per row, and rows per page."""

CELL, GAP, CAPTION = 186, 8, 44  # px


@dataclass(frozen=True, eq=False)
class FilterPicture:
    """Activation of one filter in the displayed slice.

    Attributes
    ----------
    number
        Channel of the filter, from 0.
    picture
        ``(X, Y)``, X from left to right of the patient, Y from posterior to anterior.
    importance
        First-order contribution of the filter to the target.
    """

    number: int
    picture: NDArray[Any]
    importance: float


def draw_filters(
    pictures: Sequence[FilterPicture],
    stem: Path,
    *,
    title: str,
    pixel: tuple[float, float],
    facts: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    laterality_known: bool = True,
) -> list[Path]:
    """Draw filters in the given order, on one or more pages.

    Parameters
    ----------
    pictures
        Activations, all of the same shape.
    stem
        Path without extension; the pages are ``STEM_page-1.png`` and so on, with leading zeros.
    title
        Case, target and layer.
    pixel
        Width and height of a pixel in mm.
    laterality_known
        Whether left and right of the patient are known.

    Raises
    ------
    OutputError
        If there is nothing to draw, or a file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> shown = [FilterPicture(k, np.random.rand(4, 5), 0.1) for k in range(50)]
    >>> stem = Path(tempfile.mkdtemp()) / "filters"
    >>> [page.name for page in draw_filters(shown, stem, title="L1", pixel=(2.0, 2.0))]
    ['filters_page-1.png', 'filters_page-2.png']
    """
    if not pictures:
        raise OutputError(f"{stem.name}: the layer has no filters, so there is nothing to draw")
    per_page = ACROSS * DOWN
    count = ceil(len(pictures) / per_page)
    pages = []
    for page in range(count):
        shown = pictures[page * per_page : (page + 1) * per_page]
        numbered = title + (f"  ·  page {page + 1} of {count}" if count > 1 else "")
        make = partial(
            _page, shown, numbered, pixel, dict(facts or {}), list(notes), laterality_known
        )
        name = f"{stem.name}_page-{page + 1:0{len(str(count))}d}.png"
        pages.append(save_figure(make, stem.with_name(name)))
    return pages


def _page(
    shown: Sequence[FilterPicture],
    title: str,
    pixel: tuple[float, float],
    facts: Mapping[str, str],
    notes: Sequence[str],
    laterality_known: bool,
) -> Figure:
    across = min(ACROSS, len(shown))
    width = max(1000, 2 * PAD + across * (CELL + GAP))
    room = width - 2 * PAD
    header = Header(title, facts, room)
    own = (
        f"{CONVENTION if laterality_known else UNKNOWN_SIDES} "
        "Below each panel: the number of the filter and the sum of activation × gradient over the "
        "layer, its first-order contribution to the target. Filters are sorted by its magnitude. "
        f"The color scale of each panel ends at its own {PERCENTILE:g}th percentile of "
        "|activation|. Yellow is positive, violet negative and black zero. An activation alone is "
        "no evidence; the number is red if the filter speaks for the target and blue if against.",
    )
    footer = Footer((*notes, *own), room)
    size = shown[0].picture.shape
    extent = (size[0] * pixel[0], size[1] * pixel[1])
    height = CELL * extent[1] / extent[0]
    row = Row("", extent, AXIAL.letters if laterality_known else NO_LETTERS)
    top = PAD + header.height + 12
    lines = ceil(len(shown) / across)
    bottom = top + lines * (height + CAPTION)
    sheet = Sheet.blank(width, int(bottom + footer.height))
    header.write(sheet)
    for index, unit in enumerate(shown):
        x = PAD + (index % across) * (CELL + GAP)
        y = top + (index // across) * (height + CAPTION)
        panel, limits = _panel(unit)
        axes = sheet.axes(x, y, CELL, height)
        draw_panel(axes, panel, row, limits, first=index == 0)
        sheet.write(x, y + height + 2, f"#{unit.number}", size=7.8, weight="bold")
        sheet.write(
            x + CELL,
            y + height + 2,
            f"{unit.importance:+.2g}",
            size=7.8,
            ha="right",
            color=_ink(unit.importance),
        )
    footer.write(sheet, bottom)
    return sheet.figure


def _ink(importance: float) -> str:
    """Return red for a contribution for the target, blue for one against it."""
    positive, negative = COLORS["signed"]
    return "black" if importance == 0 else positive if importance > 0 else negative


def _panel(unit: FilterPicture) -> tuple[Panel, Limits | None]:
    picture = AXIAL.cut(unit.picture[:, :, None], 0)
    if not np.isfinite(picture).all():
        return Panel(remark="not finite"), None
    if not picture.any():
        return Panel(remark="zero in\nthis slice"), None
    return Panel(heat=picture), color_limits(picture, "activation")
