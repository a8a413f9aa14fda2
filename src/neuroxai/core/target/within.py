"""Names of restrictions, as on the command line: ``image``, ``prediction``, ``lesion:N``.

Free of torch, so that an option is checked quickly.
"""

from __future__ import annotations

from neuroxai.core.errors import TargetError

RESTRICTIONS = ("image", "prediction", "truth", "lesion")


def parse_within(within: str) -> tuple[str, int]:
    """Return the kind of a restriction, and the lesion's number, 1 for the largest.

    Raises
    ------
    TargetError
        If the text does not name a restriction.

    Examples
    --------
    >>> parse_within("prediction"), parse_within("lesion:2"), parse_within("lesion")
    (('prediction', 1), ('lesion', 2), ('lesion', 1))
    """
    kind, colon, number = within.partition(":")
    if kind not in RESTRICTIONS or (colon and kind != "lesion"):
        raise TargetError(
            f"unknown restriction within={within!r}: expected image, prediction, truth or lesion:N"
        )
    if colon and not number.isdecimal():
        raise TargetError(
            f"within={within!r}: expected a number after the colon; lesion:1 is the largest lesion"
        )
    return kind, int(number or 1)
