"""The modality that maps are drawn on, for networks with other names and for other targets."""

from __future__ import annotations

import pytest

from neuroxai.render.background import background_modality

ALL = ("T1", "T1ce", "T2", "FLAIR")


@pytest.mark.parametrize(
    ("target", "modalities", "strongest", "expected"),
    [
        ("ET", ALL, "FLAIR", "T1ce"),
        ("TC", ALL, None, "T1ce"),
        ("NCR", ALL, None, "T1ce"),
        ("WT", ALL, "T1ce", "FLAIR"),
        ("ED", ALL, None, "FLAIR"),
        ("enhancing tumour", ALL, None, "T1ce"),
        ("region TC in box", ALL, None, "T1ce"),
        ("ET", ("t1n", "t1c", "t2w", "t2f"), None, "t1c"),
        ("WT", ("T1-Gd", "T2_FLAIR"), None, "T2_FLAIR"),
        ("WT", ("T1", "T1ce"), "T1", "T1"),
        ("WT", ("T1", "T1ce"), None, "T1ce"),
        ("HGG", ALL, "T2", "T2"),
        ("HGG", ALL, None, "T1ce"),
        ("predicted", ("CT",), None, "CT"),
        ("liver", ("PET", "CT"), "CT", "CT"),
        ("liver", ("PET", "CT"), "gone", "PET"),
    ],
)
def test_the_modality_on_which_a_region_is_delineated(
    target: str, modalities: tuple[str, ...], strongest: str | None, expected: str
) -> None:
    assert background_modality(target, modalities, strongest) == expected
