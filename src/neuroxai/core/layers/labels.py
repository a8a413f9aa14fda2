"""Labels of layers: a module's name, its call in a pass, and the grid of its cells.

Free of torch, so that options are checked quickly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

from neuroxai.core.errors import LayerError

AUTO = "auto"
"""Stands for the layer chosen by :func:`~neuroxai.core.layers.auto_layer.auto_layer`."""

INPUT = ":input"
"""Suffix of the input of a convolution: ``head:input``, whatever branches are joined there."""

_GRID = re.compile(r"@(\d+(?:x\d+)+)$")
"""Suffix of a layer on a given grid: ``blocks.3@14x14``."""

GridLike = str | Sequence[int]
"""A grid as text, ``14x14``, or as numbers."""


def parse_grid(grid: GridLike) -> tuple[int, ...]:
    """Return the numbers of cells along each axis of a layer.

    Raises
    ------
    LayerError
        If it is not two or three positive numbers.

    Examples
    --------
    >>> parse_grid("6x7x5"), parse_grid([14, 14])
    ((6, 7, 5), (14, 14))
    """
    parts = grid.lower().split("x") if isinstance(grid, str) else list(grid)
    try:
        cells = tuple(int(part) for part in parts)
    except (TypeError, ValueError):
        cells = ()
    if len(cells) not in (2, 3) or min(cells) < 1:
        raise LayerError(
            f"invalid layer grid {grid!r}: give the number of cells along each axis of the image, "
            "for example 14x14, or 6x7x5 in 3D"
        )
    return cells


def format_grid(grid: Sequence[int]) -> str:
    """Return a grid as text.

    Examples
    --------
    >>> format_grid((6, 7, 5))
    '6x7x5'
    """
    return "x".join(map(str, grid))


def grid_of(label: str) -> tuple[int, ...] | None:
    """Return the grid that a label gives its layer, None if it gives none.

    Examples
    --------
    >>> grid_of("blocks.3@14x14"), grid_of("blocks.3")
    ((14, 14), None)
    """
    found = _GRID.search(label)
    return None if found is None else parse_grid(found[1])


def without_grid(label: str) -> str:
    """Return a label without its grid.

    Examples
    --------
    >>> without_grid("blocks.3#2@14x14")
    'blocks.3#2'
    """
    return _GRID.sub("", label)


def with_grid(label: str | None, grid: GridLike | None) -> str | None:
    """Return the label of a layer on a given grid; of the default layer, if none is named.

    Raises
    ------
    LayerError
        If the grid is invalid, or the label gives another one.

    Examples
    --------
    >>> with_grid("blocks.3", (14, 14)), with_grid(None, "6x7x5"), with_grid("blocks.3", None)
    ('blocks.3@14x14', 'auto@6x7x5', 'blocks.3')
    """
    if grid is None:
        return label
    cells, own = parse_grid(grid), grid_of(label or "")
    if own not in (None, cells):
        raise LayerError(
            f"layer {label!r} and the layer grid {format_grid(cells)} contradict each other: "
            "leave one out"
        )
    return f"{without_grid(label or AUTO)}@{format_grid(cells)}"


def is_auto(label: str) -> bool:
    """Return whether a label stands for the default layer, on whatever grid.

    Examples
    --------
    >>> is_auto("auto@14x14"), is_auto("layer4")
    (True, False)
    """
    return without_grid(label) == AUTO


def stands_for(requested: str, label: str) -> bool:
    """Return whether a requested label stands for the label of a call.

    A name without a number stands for every call of its module, ``name#1`` for the first.

    Examples
    --------
    >>> stands_for("a#1@4x4", "a"), stands_for("a", "a#2"), stands_for("a#3", "a#2")
    (True, True, False)
    """
    plain = without_grid(requested)
    return plain in (label, label.partition("#")[0]) or plain == f"{label}#1"


def module_name(label: str) -> str:
    """Return the dotted name of the module of a layer's label.

    Examples
    --------
    >>> module_name("head:input#2"), module_name("head#2")
    ('head', 'head')
    """
    return without_grid(label).partition("#")[0].removesuffix(INPUT)


def is_input(label: str) -> bool:
    """Return whether a label is that of the input of a convolution.

    Examples
    --------
    >>> is_input("head:input#2"), is_input("head#2")
    (True, False)
    """
    return without_grid(label).partition("#")[0].endswith(INPUT)


def input_label(label: str) -> str:
    """Return the label of the input of a convolution's call.

    Examples
    --------
    >>> input_label("head"), input_label("head#2")
    ('head:input', 'head:input#2')
    """
    name, call, number = label.partition("#")
    return f"{name}{INPUT}{call}{number}"


def call_label(label: str, ran: Collection[str]) -> str:
    """Return the label of a call that names it alone: the first of several calls is ``name#1``.

    A name without a number stands for the last call of its module.

    Parameters
    ----------
    label
        The label of a call.
    ran
        The labels of all calls of the pass.

    Examples
    --------
    >>> call_label("a", ["a", "b", "a#2"]), call_label("b", ["a", "b", "a#2"])
    ('a#1', 'b')
    """
    return f"{label}#1" if f"{label}#2" in ran else label


class CallLabels:
    """Labels of the calls of modules and functions: ``conv``, then ``conv#2``, ``conv#3``.

    Examples
    --------
    >>> labels = CallLabels()
    >>> labels.next("a"), labels.next("b"), labels.next("a"), "b" in labels
    ('a', 'b', 'a#2', True)
    """

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()

    def __contains__(self, name: str) -> bool:
        return name in self._calls

    def next(self, name: str) -> str:
        """Count one more call of ``name`` and return its label."""
        self._calls[name] += 1
        return name if self._calls[name] == 1 else f"{name}#{self._calls[name]}"
