"""Standard names of input and output channels, and the names that other projects use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from neuroxai.core.vocabulary import REGIONS

MODALITIES = {
    "t1": "T1", "t1w": "T1", "t1n": "T1",
    "t1c": "T1ce", "t1ce": "T1ce", "t1gd": "T1ce", "t1gad": "T1ce", "t1post": "T1ce",
    "t2": "T2", "t2w": "T2",
    "flair": "FLAIR", "t2f": "FLAIR", "t2flair": "FLAIR",
}  # fmt: skip
OUTPUTS = {
    "background": "background",
    "wholetumor": "WT", "wt": "WT", "tumorcore": "TC", "tc": "TC",
    "enhancingtumor": "ET", "et": "ET", "gdenhancingtumor": "ET",
    "necroticcore": "NCR", "ncr": "NCR", "ncrnet": "NCR", "necrosis": "NCR",
    "nonenhancingtumorcore": "NCR", "edema": "ED", "ed": "ED", "peritumoraledema": "ED",
    "snfh": "ED", "resectioncavity": "RC", "rc": "RC",
}  # fmt: skip


def standard_name(name: str, known: Mapping[str, str]) -> str:
    """Return the standard name of a channel, or its own name if it has none.

    Examples
    --------
    >>> standard_name("T1-Gd", MODALITIES), standard_name("CT", MODALITIES)
    ('T1ce', 'CT')
    """
    return known.get(re.sub(r"[^a-z0-9]", "", name.lower()), name)


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
    """
    if activation == "softmax":
        return {
            region: members for region, members in REGIONS.items() if set(members) <= set(names)
        }
    return {name: (name,) for name in names if name in REGIONS}
