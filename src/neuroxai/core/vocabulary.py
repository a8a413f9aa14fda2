"""Names of modalities, tissue classes and tumor regions, and the notice on every result."""

from __future__ import annotations

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
