"""Standard names of input and output channels, and the names that other projects use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from neuroxai.core.vocabulary import REGIONS, standard_class


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

    With exclusive classes (softmax), a region needs all of its classes, or is the only class next
    to the background. With overlapping ones (sigmoid), a region is itself an output channel.

    Examples
    --------
    >>> regions_of(("WT", "ET"), "sigmoid")
    {'WT': ('WT',), 'ET': ('ET',)}
    >>> regions_of(("background", "NCR", "ET"), "softmax")
    {'TC': ('NCR', 'ET'), 'ET': ('ET',)}
    >>> regions_of(("background", "whole tumor"), "softmax")
    {'WT': ('whole tumor',)}
    >>> names = ("background", "edema", "non-enhancing tumor", "enhancing tumour")
    >>> regions_of(names, "softmax")["TC"]
    ('non-enhancing tumor', 'enhancing tumour')
    """
    channels: dict[str, list[str]] = {}
    for name in names:
        channels.setdefault(standard_class(name), []).append(name)
    foreground = [known for known in channels if known != "background"]
    if activation == "softmax" and foreground not in [[region] for region in REGIONS]:
        return {
            region: tuple(name for member in members for name in channels[member])
            for region, members in REGIONS.items()
            if channels.keys() >= {*members}
        }
    return {known: (own[0],) for known, own in channels.items() if known in REGIONS}
