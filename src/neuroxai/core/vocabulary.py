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


_CONTRAST = (
    "c|ce|gd|gad|gado|gadolinium|post|postcontrast|postcon|postgd|postgad|postce|contrast|"
    "contrastenhanced|enhanced|km|cm"
)
_MODALITY_NAMES: Mapping[str, re.Pattern[str]] = {
    name: re.compile(pattern)
    for name, pattern in {
        "T1ce": rf"t1w?(?:{_CONTRAST})w?|(?:ce|gd|gad|gado|gadolinium|postcontrast|contrast)t1w?",
        "T1": r"t1(?:w|n|weighted|native|pre|precontrast|wpre|wprecontrast)?",
        "T2": r"t2(?:w|weighted)?",
        "FLAIR": r"(?:t2w?)?flairw?|t2f|flairt2w?",
        "t2star": r"t2(?:star|s|st)w?",
        "pd": r"pdw?|protondensity",
        "adc": r"adc(?:map)?",
        "dwi": r"dwi|dwitrace|trace|tracew",
        "swi": r"swi",
    }.items()
}
"""Names of modalities in other projects, as :func:`modality_key` compares them."""


def modality_key(name: str) -> str:
    """Return what two names of one modality have in common.

    That is the name in :data:`MODALITIES` for those of BraTS, and otherwise the lowercase letters
    and digits of the name, with ``*`` read as ``star``.

    Examples
    --------
    >>> [modality_key(name) for name in ("T1-Gd", "t2w", "T2_FLAIR", "T2*", "b1000", "T2starw")]
    ['T1ce', 'T2', 'FLAIR', 't2star', 'b1000', 't2star']
    """
    key = re.sub(r"[\W_]", "", name.lower().replace("*", "star"))
    return next((known for known, form in _MODALITY_NAMES.items() if form.fullmatch(key)), key)


def standard_modality(name: str) -> str:
    """Return the standard name of an input channel, or its own name if it has none.

    Examples
    --------
    >>> standard_modality("T1-Gd"), standard_modality("CT")
    ('T1ce', 'CT')
    """
    key = modality_key(name)
    return key if key in MODALITIES else name


def place_in_words(name: str) -> str:
    """Return the name of the place of a target for a sentence.

    Examples
    --------
    >>> place_in_words("prediction"), place_in_words("lesion 2")
    ('the prediction', 'lesion 2')
    """
    return f"the {name}" if name in ("prediction", "truth") else name
