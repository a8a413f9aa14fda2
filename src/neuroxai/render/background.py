"""Choice of the modality that a map is drawn on."""

from __future__ import annotations

import re
from collections.abc import Iterable

from neuroxai.core.vocabulary import standard_class, standard_modality

_SHOWN_ON = {
    "WT": "FLAIR", "ED": "FLAIR",
    "TC": "T1ce", "ET": "T1ce", "NCR": "T1ce", "RC": "T1ce",
}  # fmt: skip
"""Modality on which radiologists delineate each region (Bakas et al. 2017,
doi:10.1038/sdata.2017.117): the core on contrast-enhanced T1, the whole tumor on FLAIR."""

_PREFERENCE = ("T1ce", "FLAIR", "T2", "T1")
"""For a target without a region, the sequences in which tumors are most visible first."""


def background_modality(
    target: str, modalities: Iterable[str], strongest: str | None = None
) -> str:
    """Return the modality to draw the maps of a target on.

    Parameters
    ----------
    target
        Name of the target. If it contains the name of a tumor region or class, the map is drawn
        where radiologists delineate it: WT and edema on FLAIR, TC, ET and necrosis on T1ce.
    modalities
        Modalities of the scan, at least one, by any common name.
    strongest
        The modality with the largest share of the maps, used for other targets, such as the grade
        of a classifier. Without it, the first of T1ce, FLAIR, T2 and T1 that exists is used, or
        else the first modality.

    Examples
    --------
    >>> background_modality("ET", ["T1", "T1-Gd", "FLAIR"])
    'T1-Gd'
    >>> background_modality("HGG", ["T1", "FLAIR"], strongest="T1")
    'T1'
    """
    names = list(modalities)
    standard = {standard_modality(name): name for name in reversed(names)}
    words = (target, *re.split(r"[^A-Za-z0-9]+", target))
    wanted = next((_SHOWN_ON[w] for w in map(standard_class, words) if w in _SHOWN_ON), None)
    if wanted in standard:
        return standard[str(wanted)]
    if strongest in names:
        return str(strongest)
    return next((standard[name] for name in _PREFERENCE if name in standard), names[0])
