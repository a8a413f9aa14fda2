"""Names of modalities, tissue classes and tumor regions, and the notice on every result."""

from __future__ import annotations

import re
from collections.abc import Mapping

NOT_FOR_CLINICAL_USE = "Research use only, not for clinical use."

MODALITIES = ("T1", "T1ce", "T2", "FLAIR")
"""MRI modalities, in the order of BraTS."""

CLASSES = ("background", "NCR", "ED", "ET", "RC")
"""Tissue classes by index: necrosis, edema, enhancing tumor, resection cavity."""

REGIONS: Mapping[str, tuple[str, ...]] = {
    "WT": ("NCR", "ED", "ET"),
    "TC": ("NCR", "ET"),
    "ET": ("ET",),
}
"""Nested tumor regions as sets of classes: whole tumor, tumor core, enhancing tumor."""

_CLASS_NAMES: Mapping[str, str] = {
    "background": "background",
    "wholetumor": "WT", "completetumor": "WT", "wt": "WT",
    "tumorcore": "TC", "tc": "TC",
    "enhancingtumor": "ET", "enhancingtissue": "ET", "enhancing": "ET", "et": "ET",
    "gdenhancingtumor": "ET", "gadoliniumenhancingtumor": "ET",
    "necrosis": "NCR", "necroticcore": "NCR", "necrotictumorcore": "NCR", "ncr": "NCR",
    "nonenhancingtumor": "NCR", "nonenhancingtumorcore": "NCR", "nonenhancing": "NCR",
    "ncrnet": "NCR", "netc": "NCR", "necroticandnonenhancingtumor": "NCR",
    "necroticandnonenhancingtumorcore": "NCR",
    "edema": "ED", "ed": "ED", "peritumoraledema": "ED", "vasogenicedema": "ED", "snfh": "ED",
    "surroundingnonenhancingflairhyperintensity": "ED",
    "resectioncavity": "RC", "rc": "RC",
}  # fmt: skip
"""Names of classes and regions in other projects (Medical Segmentation Decathlon, nnU-Net, MONAI,
BraTS of all years) to those of :data:`CLASSES` and :data:`REGIONS`. Label files do not separate
necrosis from non-enhancing tumor."""


def standard_class(name: str) -> str:
    """Return the standard name of a class or region, or its own name if it has none.

    Case, punctuation, and British or American spelling do not matter.

    Examples
    --------
    >>> [standard_class(name) for name in ("enhancing tumour", "Peritumoral_Oedema", "lesion")]
    ['ET', 'ED', 'lesion']
    """
    key = re.sub(r"[^a-z0-9]", "", name.lower())
    return _CLASS_NAMES.get(key.replace("tumour", "tumor").replace("oedema", "edema"), name)


_MODALITY_NAMES: Mapping[str, str] = {
    "t1": "T1", "t1w": "T1", "t1n": "T1",
    "t1c": "T1ce", "t1ce": "T1ce", "t1gd": "T1ce", "t1gad": "T1ce", "t1post": "T1ce",
    "t1wce": "T1ce", "t1km": "T1ce",
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
    return _MODALITY_NAMES.get(re.sub(r"[^a-z0-9]", "", name.lower()), name)
