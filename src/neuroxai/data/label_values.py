"""Label values of a layout, converted from and to class indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError
from neuroxai.core.vocabulary import CLASSES
from neuroxai.data.layouts import EXTRA_LABELS, Layout, all_layouts, get_layout
from neuroxai.data.nesting import contradiction, exposures


def encode_labels(indices: NDArray[Any], layout: str | Layout) -> NDArray[np.uint8]:
    """Convert indices into :data:`~neuroxai.data.case.CLASSES` to the label values of a layout.

    Raises
    ------
    CaseError
        If a class that occurs has no label value in the layout.

    Examples
    --------
    >>> encode_labels(np.array([0, 1, 2, 3]), "brats2021").tolist()
    [0, 1, 2, 4]
    """
    layout = get_layout(layout)
    table = np.zeros(len(CLASSES), dtype=np.uint8)
    for index in np.unique(indices):
        if not 0 <= index < len(CLASSES) or index != int(index):
            raise CaseError(
                f"{index} is not a class index; expected 0 to {len(CLASSES) - 1} "
                f"({', '.join(CLASSES)})"
            )
        if index and CLASSES[int(index)] not in layout.labels:
            raise CaseError(
                f"the layout {layout.name} has no label value for the class "
                f"{CLASSES[int(index)]}, only for {', '.join(layout.labels)}; "
                "choose another layout"
            )
        if index:
            table[int(index)] = layout.labels[CLASSES[int(index)]]
    encoded: NDArray[np.uint8] = table[np.asarray(indices).astype(np.intp)]
    return encoded


def decode_labels(
    numbers: NDArray[Any], layout: str | Layout, file: str = "labels"
) -> NDArray[np.uint8]:
    """Convert the label values of a layout to indices into :data:`~neuroxai.data.case.CLASSES`.

    Parameters
    ----------
    file
        Path of the label file, for the error message.

    Raises
    ------
    CaseError
        If a value is not one of the layout's.

    Examples
    --------
    >>> decode_labels(np.array([0, 1, 2, 3]), "brats2023").tolist()
    [0, 1, 2, 3]
    """
    layout = get_layout(layout)
    classes = _classes(layout)
    known = {0: 0} | {number: CLASSES.index(name) for number, name in classes.items()}
    values = [int(value) for value in np.unique(numbers)]
    unknown = [value for value in values if value not in known]
    if unknown:
        shown = ", ".join(map(str, unknown[:8])) + (", ..." if len(unknown) > 8 else "")
        raise CaseError(
            f"{file}: unknown label values {shown}; the layout {layout.name} has "
            f"0, {', '.join(f'{n} ({CLASSES[known[n]]})' for n in sorted(known) if n)}; "
            f"{_remedy(numbers, values)} or correct the file"
        )
    table = np.zeros(max(known) + 1, dtype=np.uint8)
    for number, index in known.items():
        table[number] = index
    decoded: NDArray[np.uint8] = table[numbers]
    return decoded


def label_warnings(numbers: NDArray[Any], layout: Layout, file: str) -> list[str]:
    """Return warnings about label values that are known but do not fit the picture.

    Examples
    --------
    >>> numbers = np.zeros((7, 7, 7), int)
    >>> numbers[1:6, 1:6, 1:6], numbers[2:5, 2:5, 2:5] = 1, 2
    >>> for part in label_warnings(numbers, get_layout("brats2021"), "seg.nii")[0].split("; "):
    ...     print(part)
    seg.nii: the label values do not fit the layout brats2021: 2 (ED) is enclosed by 1 (NCR)
    choose the layout of the data set, for example --layout decathlon (1 ED, 2 NCR)
    """
    values = [int(value) for value in np.unique(numbers) if value]
    classes = _classes(layout)
    if values == [1] and classes.get(1) == "NCR":
        return [
            f"{file}: the only label value is 1, read as NCR; if it is a mask of the whole tumor, "
            "its regions are wrong"
        ]
    exposed = exposures(numbers)
    reason = contradiction(exposed, classes)
    if reason is None:
        return []
    fits = _fitting(exposed, values)
    example = f", for example --layout {_described(fits[0], values)}" if fits else ""
    return [
        f"{file}: the label values do not fit the layout {layout.name}: {reason}; choose the "
        f"layout of the data set{example}"
    ]


def _classes(layout: Layout) -> dict[int, str]:
    """Return label value to class."""
    return {number: name for name, number in layout.labels.items()} | dict(
        EXTRA_LABELS.get(layout.name, {})
    )


def _fitting(exposed: Mapping[int, float], values: Sequence[int]) -> list[Layout]:
    """Return the layouts that have all values, nested as in the picture; with edema first.

    Almost every labeled tumor has edema, so a layout that names none is less likely.
    """
    fits = [
        layout
        for layout in all_layouts().values()
        if layout.name != "brats2024-men-rt"  # one label, and file names of its own
        and {*values} <= {0, *layout.labels.values()}
        and contradiction(exposed, _classes(layout)) is None
    ]
    return sorted(fits, key=lambda layout: layout.labels.get("ED") not in values)


def _remedy(numbers: NDArray[Any], values: Sequence[int]) -> str:
    """Return what to do about unknown values; a layout only if the picture does not refute it."""
    fits = _fitting(exposures(numbers), values)
    meanings: dict[str, Layout] = {}
    for layout in fits:
        meanings.setdefault(_described(layout, values).partition(" ")[2], layout)
    if not meanings:
        return "choose another layout (--layout; none known has these values in this nesting)"
    named = [_described(layout, values) for layout in meanings.values()]
    if len(named) == 1:
        return f"choose another layout, --layout {named[0]},"
    return (
        f"choose the layout of the data set (--layout), which the picture cannot tell: "
        f"{' or '.join(named)},"
    )


def _described(layout: Layout, values: Sequence[int]) -> str:
    classes = _classes(layout)
    return f"{layout.name} ({', '.join(f'{n} {classes[n]}' for n in values if n)})"
