"""Every filter of a layer on a sheet, the one that matters most first."""

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
from neuroxai.render.colors import PERCENTILE, Limits, color_limits
from neuroxai.render.figures import CONVENTION, UNKNOWN_SIDES
from neuroxai.render.montage import Panel, Row, draw_panel
from neuroxai.render.planes import AXIAL, NO_LETTERS
from neuroxai.render.sheet import PAD, Footing, Heading, Sheet, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACROSS, DOWN = 8, 6
"""Filters in a line, and lines on a page."""

CELL, GAP, CAPTION = 186, 8, 44  # px


@dataclass(frozen=True, eq=False)
class FilterPicture:
    """One filter's activation in the shown slice.

    Attributes
    ----------
    number
        The filter's channel, from 0.
    picture
        ``(X, Y)``, axes from the patient's left to right and from back to front.
    importance
        What the filter adds to the target to first order.
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
    """Draw filters in the order given, on as many pages as it takes.

    Parameters
    ----------
    pictures
        All of one shape.
    stem
        Path without ending; pages are ``STEM_page-1.png`` and so on, padded to equal width.
    title
        Case, target and layer.
    pixel
        Width and height of a picture's cell in mm.
    laterality_known
        Whether it is known which side of the patient is where.

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
        raise OutputError(f"{stem.name}: the layer has no filters, there is nothing to draw")
    each = ACROSS * DOWN
    count = ceil(len(pictures) / each)
    pages = []
    for page in range(count):
        shown = pictures[page * each : (page + 1) * each]
        heading = title + (f"  ·  page {page + 1} of {count}" if count > 1 else "")
        make = partial(
            _page, shown, heading, pixel, dict(facts or {}), list(notes), laterality_known
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
    heading = Heading(title, facts, room)
    own = (
        f"{CONVENTION if laterality_known else UNKNOWN_SIDES} "
        "A filter's number, and its activation × "
        "gradient summed over the whole layer: what it adds to the target to first order; the "
        "sheet is sorted by its size. The "
        f"colors of each panel end at its own {PERCENTILE:g}th percentile of |activation|; blue "
        "is negative, and the bright colors of a panel without blue begin at zero.",
    )
    footing = Footing((*notes, *own), room)
    size = shown[0].picture.shape
    extent = (size[0] * pixel[0], size[1] * pixel[1])
    high = CELL * extent[1] / extent[0]
    row = Row("", extent, AXIAL.letters if laterality_known else NO_LETTERS)
    top = PAD + heading.height + 12
    lines = ceil(len(shown) / across)
    below = top + lines * (high + CAPTION)
    sheet = Sheet.blank(width, int(below + footing.height))
    heading.write(sheet)
    for place, each in enumerate(shown):
        x = PAD + (place % across) * (CELL + GAP)
        y = top + (place // across) * (high + CAPTION)
        panel, limits = _panel(each)
        axes = sheet.axes(x, y, CELL, high)
        draw_panel(axes, panel, row, limits, first=place == 0)
        sheet.write(x, y + high + 2, f"#{each.number}", size=7.8, weight="bold")
        sheet.write(x + CELL, y + high + 2, f"{each.importance:+.2g}", size=7.8, ha="right")
    footing.write(sheet, below)
    return sheet.figure


def _panel(each: FilterPicture) -> tuple[Panel, Limits | None]:
    picture = AXIAL.cut(each.picture[:, :, None], 0)
    if not np.isfinite(picture).all():
        return Panel(remark="not finite"), None
    if not picture.any():
        return Panel(remark="zero in\nthis slice"), None
    return Panel(heat=picture), color_limits(picture, signed=False)
