"""Nesting of the labels of a tumor: edema is outside, the core inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.box import bounding_box

_MARGIN = 0.3
"""Least difference between two exposures that counts as evidence. Edema of BraTS has an exposure of
0.5 to 0.8, and its core of 0 to 0.3."""


def exposures(labels: NDArray[Any]) -> dict[int, float]:
    """Return the part of each label's surface that touches the background.

    Examples
    --------
    >>> labels = np.zeros((7, 7, 7), int)
    >>> labels[1:6, 1:6, 1:6], labels[2:5, 2:5, 2:5] = 1, 2
    >>> {value: round(part, 2) for value, part in exposures(labels).items()}
    {1: 0.74, 2: 0.0}
    """
    small = np.pad(labels[bounding_box(labels != 0)], 1)
    values = [int(value) for value in np.unique(small) if value]
    open_faces = dict.fromkeys(values, 0)
    faces = dict.fromkeys(values, 0)
    for axis in range(small.ndim):
        low = np.moveaxis(small, axis, 0)
        for one, other in ((low[:-1], low[1:]), (low[1:], low[:-1])):
            edge = one != other
            for value in values:
                mine = edge & (one == value)
                faces[value] += int(mine.sum())
                open_faces[value] += int((mine & (other == 0)).sum())
    return {value: open_faces[value] / faces[value] for value in values}


def contradiction(exposed: Mapping[int, float], classes: Mapping[int, str]) -> str | None:
    """Return why label values cannot have these classes; None if they can.

    Parameters
    ----------
    exposed
        Result of :func:`exposures`.
    classes
        Label value to class.

    Examples
    --------
    >>> contradiction({1: 0.74, 2: 0.0}, {1: "NCR", 2: "ED"})
    '2 (ED) is enclosed by 1 (NCR)'
    >>> contradiction({1: 0.74, 2: 0.0}, {1: "ED", 2: "NCR"})
    """
    core = {value: part for value, part in exposed.items() if classes.get(value) in ("NCR", "ET")}
    edema = {value: part for value, part in exposed.items() if classes.get(value) == "ED"}
    if not core:
        return None
    outer = max(core, key=core.__getitem__)
    for value, part in edema.items():
        if core[outer] - part > _MARGIN:
            return f"{value} (ED) is enclosed by {outer} ({classes[outer]})"
    if not edema and len(core) > 2:
        return f"{outer} ({classes[outer]}) encloses the other values, as edema does"
    return None
