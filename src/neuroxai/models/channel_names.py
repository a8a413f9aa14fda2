"""Standard names of input and output channels, and the names that other projects use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from neuroxai.core.vocabulary import REGIONS, standard_class

MODALITIES = {
    "t1": "T1", "t1w": "T1", "t1n": "T1",
    "t1c": "T1ce", "t1ce": "T1ce", "t1gd": "T1ce", "t1gad": "T1ce", "t1post": "T1ce",
    "t2": "T2", "t2w": "T2",
    "flair": "FLAIR", "t2f": "FLAIR", "t2flair": "FLAIR",
}  # fmt: skip


def standard_modality(name: str) -> str:
    """Return the standard name of an input channel, or its own name if it has none.

    Examples
    --------
    >>> standard_modality("T1-Gd"), standard_modality("CT")
    ('T1ce', 'CT')
    """
    return MODALITIES.get(re.sub(r"[^a-z0-9]", "", name.lower()), name)


def standard_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Return the standard names of output channels; those that share one keep their own.

    Examples
    --------
    >>> standard_classes(["background", "enhancing tumour", "necrosis", "non-enhancing tumor"])
    ('background', 'ET', 'necrosis', 'non-enhancing tumor')
    """
    given = tuple(names)
    standard = [standard_class(name) for name in given]
    return tuple(
        name if standard.count(known) > 1 else known
        for name, known in zip(given, standard, strict=True)
    )


def regions_of(names: Sequence[str], activation: str) -> dict[str, tuple[str, ...]]:
    """Return the tumor regions that the output channels form.

    With exclusive classes (softmax), a region needs all of its classes. With overlapping ones
    (sigmoid), a region is itself an output channel.

    Examples
    --------
    >>> regions_of(("WT", "ET"), "sigmoid")
    {'WT': ('WT',), 'ET': ('ET',)}
    >>> regions_of(("background", "NCR", "ET"), "softmax")
    {'TC': ('NCR', 'ET'), 'ET': ('ET',)}
    >>> names = ("background", "edema", "non-enhancing tumor", "enhancing tumour")
    >>> regions_of(names, "softmax")["TC"]
    ('non-enhancing tumor', 'enhancing tumour')
    """
    channels: dict[str, list[str]] = {}
    for name in names:
        channels.setdefault(standard_class(name), []).append(name)
    if activation == "softmax":
        return {
            region: tuple(name for member in members for name in channels[member])
            for region, members in REGIONS.items()
            if channels.keys() >= {*members}
        }
    return {known: (own[0],) for known, own in channels.items() if known in REGIONS}
