"""Label values of a layout, converted from and to class indices."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError
from neuroxai.core.vocabulary import CLASSES
from neuroxai.data.layouts import EXTRA_LABELS, LAYOUTS, Layout, get_layout


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
    known = {0: 0} | {number: CLASSES.index(name) for name, number in layout.labels.items()}
    extra = EXTRA_LABELS.get(layout.name, {})
    known |= {number: CLASSES.index(name) for number, name in extra.items()}
    values = [int(value) for value in np.unique(numbers)]
    unknown = [value for value in values if value not in known]
    if unknown:
        fitting = [
            other.name
            for other in LAYOUTS.values()
            if other.labels != layout.labels and {*values} <= {0, *other.labels.values()}
        ]
        shown = ", ".join(map(str, unknown[:8])) + (", ..." if len(unknown) > 8 else "")
        remedy = f"--layout {' or '.join(fitting)}" if fitting else "--layout"
        raise CaseError(
            f"{file}: unknown label values {shown}; the layout {layout.name} has "
            f"0, {', '.join(f'{n} ({CLASSES[known[n]]})' for n in sorted(known) if n)}; "
            f"choose another layout ({remedy}) or correct the file"
        )
    table = np.zeros(max(known) + 1, dtype=np.uint8)
    for number, index in known.items():
        table[number] = index
    decoded: NDArray[np.uint8] = table[numbers]
    return decoded
