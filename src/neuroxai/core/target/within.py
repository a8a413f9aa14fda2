"""Names of restrictions, as on the command line: ``image``, ``prediction``, ``lesion:N``.

Free of torch, so that an option is checked quickly.
"""

from __future__ import annotations

from neuroxai.core.errors import TargetError

RESTRICTIONS = ("image", "prediction", "truth", "lesion")


FILE = "file"
"""Kind of a restriction that is named by the path of a mask."""


def parse_within(within: str) -> tuple[str, int]:
    """Return the kind of a restriction, and the lesion's number, 1 for the largest.

    A text with a dot or a slash is the path of a mask.

    Raises
    ------
    TargetError
        If the text does not name a restriction.

    Examples
    --------
    >>> parse_within("prediction"), parse_within("lesion:2"), parse_within("lesion")
    (('prediction', 1), ('lesion', 2), ('lesion', 1))
    >>> parse_within("masks/vessel.nii.gz")
    ('file', 1)
    """
    kind, colon, number = within.partition(":")
    if kind not in RESTRICTIONS and any(mark in within for mark in "./\\"):
        return FILE, 1
    if kind not in RESTRICTIONS or (colon and kind != "lesion"):
        raise TargetError(
            f"unknown restriction within={within!r}: expected image, prediction, truth, "
            "lesion:N or the path of a mask such as mask.nii.gz"
        )
    if colon and not (number.isdecimal() and int(number)):
        raise TargetError(
            f"within={within!r}: expected a number after the colon; lesion:1 is the largest lesion"
        )
    return kind, int(number or 1)
