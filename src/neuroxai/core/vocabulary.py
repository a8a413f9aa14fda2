"""The field's names of modalities, tissue classes and tumor regions."""

from __future__ import annotations

from collections.abc import Mapping

MODALITIES = ("T1", "T1ce", "T2", "FLAIR")
"""The field's names, in the order BraTS lists them."""

CLASSES = ("background", "NCR", "ED", "ET", "RC")
"""Tissue classes by index: necrosis, edema, enhancing tumor, resection cavity."""

REGIONS: Mapping[str, tuple[str, ...]] = {
    "WT": ("NCR", "ED", "ET"),
    "TC": ("NCR", "ET"),
    "ET": ("ET",),
}
"""Nested tumor regions as sets of classes: whole tumor, tumor core, enhancing tumor."""
