"""Regions of a tumor that a network predicts, from the names of its classes and its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from neuroxai.core.target.outputs import Outputs
from neuroxai.core.vocabulary import CLASSES, REGIONS, standard_class


def own_names(names: Sequence[str]) -> list[str]:
    """Return the names of a network's own classes, with the standard name of the background.

    Examples
    --------
    >>> own_names(["Background", "Enhancing Tumour"])
    ['background', 'Enhancing Tumour']
    """
    return [CLASSES[0] if standard_class(name) == CLASSES[0] else name for name in names]


def predicted_regions(outputs: Outputs, classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the tumor's regions that a network predicts, and the classes of each.

    These are regions that the card declares, output channels that are regions, and regions whose
    classes all are output channels.

    Parameters
    ----------
    outputs
        Names of the output channels, and the declared regions.
    classes
        The classes of the predicted labels: those of brain tumors, or the network's own.

    Examples
    --------
    >>> predicted_regions(
    ...     Outputs(("background", "tumor"), {"WT": ("tumor",)}, "softmax"), ("background", "tumor")
    ... )
    {'WT': ('tumor',)}
    >>> predicted_regions(Outputs(("background", "necrosis", "ET"), {}, "softmax"), CLASSES)
    {'TC': ('NCR', 'ET'), 'ET': ('ET',)}
    """
    names = {standard_class(name) for name in outputs.names}
    if tuple(classes) != CLASSES:
        renamed = dict(zip(outputs.names, own_names(outputs.names), strict=True))
        own = {region: tuple(renamed[each] for each in members)
               for region, members in _declared(outputs).items()}  # fmt: skip
        if outputs.activation != "softmax":  # a channel that is a region itself
            own |= {known: (name,) for name in outputs.names
                    if (known := standard_class(name)) in REGIONS and known not in own}  # fmt: skip
        return {region: own[region] for region in REGIONS if region in own}
    found = {region: members for region, members in REGIONS.items()
             if region in names or {*members} <= names}  # fmt: skip
    for region, members in _declared(outputs).items():
        standard = tuple(standard_class(name) for name in members)
        # Labels of overlapping regions are nested: edema is what only the whole tumor has.
        found[region] = standard if {*standard} <= {*CLASSES} else REGIONS[region]
    return {region: found[region] for region in REGIONS if region in found}


def overlapping_regions(
    scores: Tensor, outputs: Outputs, regions: Mapping[str, tuple[str, ...]]
) -> dict[str, Tensor]:
    """Return masks ``(*S)`` of regions whose classes overlap: any class is above one half.

    Parameters
    ----------
    scores
        Output of the network, ``(K, *S)``.
    outputs, regions
        See :func:`predicted_regions`.

    Returns
    -------
    dict
        Empty for exclusive classes, whose regions follow from the labels.
    """
    if outputs.activation != "sigmoid":
        return {}
    predicted = outputs.probabilities(scores[None])[0] > 0.5
    names = own_names(outputs.names)
    return {
        region: predicted[[names.index(each) for each in members]].any(dim=0)
        for region, members in regions.items()
    }


def _declared(outputs: Outputs) -> dict[str, tuple[str, ...]]:
    """Return the declared regions that label files have, by their standard names."""
    return {
        standard_class(region): members
        for region, members in outputs.regions.items()
        if standard_class(region) in REGIONS
    }
