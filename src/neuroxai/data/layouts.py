"""File names and label values of the BraTS data sets, by year."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from neuroxai.core.errors import CaseError, suggestion


@dataclass(frozen=True)
class Layout:
    """File names and label values of one release of a data set.

    Label values depend on the year (4 is enhancing tumor up to 2021 and the resection cavity in
    2024), so label files are always decoded with their layout.
    """

    name: str
    labels: Mapping[str, int]
    """Class name to label value in the file, without the background."""
    suffixes: Mapping[str, str]
    """Modality name (or ``truth``) to file suffix, for example ``T1ce`` to ``t1ce``."""
    separator: str = "_"


_NAMES_2018 = {"T1": "t1", "T1ce": "t1ce", "T2": "t2", "FLAIR": "flair", "truth": "seg"}
_NAMES_2023 = {"T1": "t1n", "T1ce": "t1c", "T2": "t2w", "FLAIR": "t2f", "truth": "seg"}
_LABELS_2018 = {"NCR": 1, "ED": 2, "ET": 4}
_LABELS_2023 = {"NCR": 1, "ED": 2, "ET": 3}
_LABELS_2024 = {"NCR": 1, "ED": 2, "ET": 3, "RC": 4}

LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        layout.name: layout
        for layout in (
            Layout("brats2018", _LABELS_2018, _NAMES_2018),
            Layout("brats2019", _LABELS_2018, _NAMES_2018),
            Layout("brats2020", _LABELS_2018, _NAMES_2018),
            Layout("brats2021", _LABELS_2018, _NAMES_2018),
            Layout("brats2023", _LABELS_2023, _NAMES_2023, "-"),
            Layout("brats2024", _LABELS_2024, _NAMES_2023, "-"),
            # Files named by modality alone, without a case name or separator.
            Layout("plain", _LABELS_2018, _NAMES_2018, ""),
        )
    }
)
"""Layout name to layout. Label 4 is enhancing tumor up to 2021 and resection cavity in 2024."""

_PEDIATRIC_2024 = Layout("brats2024-ped", {"ET": 1, "NCR": 2, "ED": 4}, _NAMES_2023, "-")
_DECATHLON = Layout("decathlon", {"ED": 1, "NCR": 2, "ET": 3}, _NAMES_2018)
_MENINGIOMA_RT = Layout(
    "brats2024-men-rt", {"ET": 1, "NCR": 2, "ED": 3}, {**_NAMES_2023, "truth": "gtv"}
)
_FURTHER: Mapping[str, Layout] = MappingProxyType(
    {layout.name: layout for layout in (_PEDIATRIC_2024, _DECATHLON, _MENINGIOMA_RT)}
)
"""Layouts of single tracks. The pediatric one has the file names of other years, and the labels of
nnU-Net and the Medical Segmentation Decathlon the names of any, so that they must be named. The
radiotherapy track labels the gross tumor volume, which is read as ET; its other values are only
those of results."""

# The pediatric cystic component (3) is part of the tumor core, like non-enhancing tumor (2): both
# are read as NCR, and NCR is written as 2.
EXTRA_LABELS: Mapping[str, Mapping[int, str]] = MappingProxyType({_PEDIATRIC_2024.name: {3: "NCR"}})

_PREFIXES = (
    ("brats2018", r"brats18_.*"),
    ("brats2019", r"brats19_.*"),
    ("brats2020", r"brats20_.*"),
    ("brats2021", r"brats2021_.*"),
    ("brats2024-men-rt", r"brats-men-rt-.*"),
    # Since 2024, time points of post-treatment scans start at 100.
    ("brats2024", r"brats-gli-\d+-[1-9]\d\d+"),
    # Metastases have the label of a cavity since 2025, and otherwise the labels of 2023.
    ("brats2024", r"brats-mets?-.*"),
    ("brats2023", r"brats-[a-z]+-.*"),
)
_COLLECTIONS = re.compile(r"(?:ucsf-pdgm|upenn-gbm)-.*", re.IGNORECASE)
"""Collections with the labels of BraTS 2021 and other file names."""


def all_layouts() -> dict[str, Layout]:
    """Return every layout by name, including those of single tracks."""
    return {**LAYOUTS, **_FURTHER}


def patient_id(name: str) -> str:
    """Return the patient of a case: its name without a BraTS time point or BIDS session.

    Examples
    --------
    >>> patient_id("BraTS-GLI-00001-000"), patient_id("BraTS2021_00001"), patient_id("sub-7_ses-2")
    ('BraTS-GLI-00001', 'BraTS2021_00001', 'sub-7')
    """
    name = re.sub(r"^(BraTS-[A-Za-z]+-\d+)-\d+$", r"\1", name)
    return re.sub(r"^(sub-[A-Za-z0-9]+)_.*$", r"\1", name)


def get_layout(layout: str | Layout) -> Layout:
    """Return a layout by name.

    Raises
    ------
    CaseError
        If the name is unknown.

    Examples
    --------
    >>> get_layout("brats2023").suffixes["T1ce"]
    't1c'
    """
    if isinstance(layout, Layout):
        return layout
    known = all_layouts()
    if layout not in known:
        raise CaseError(f"unknown layout '{layout}'; {suggestion(layout, known)}")
    return known[layout]


def is_brats_name(prefix: str) -> bool:
    """Return whether a case name follows one of the BraTS conventions.

    Examples
    --------
    >>> is_brats_name("Brats18_2013_2_1"), is_brats_name("patient7")
    (True, False)
    """
    return any(re.fullmatch(pattern, prefix, re.IGNORECASE) for _, pattern in _PREFIXES)


def detect_layout(prefix: str, name_of_t1_files: str) -> Layout:
    """Detect the layout from the prefix of the file names, otherwise from the spelling of T1.

    Parameters
    ----------
    prefix
        Name of the case in the file names.
    name_of_t1_files
        Names of the T1 and T1ce files, in any order.

    Examples
    --------
    >>> detect_layout("BraTS-GLI-00001-101", "").name, detect_layout("", "t1.nii").name
    ('brats2024', 'plain')
    >>> detect_layout("patient7", "patient7_t1ce.nii.gz").name
    'brats2021'
    """
    for name, pattern in _PREFIXES:
        if re.fullmatch(pattern, prefix, re.IGNORECASE):
            return get_layout(name)
    if _COLLECTIONS.fullmatch(prefix):
        return LAYOUTS["brats2021"]
    if not prefix:
        return LAYOUTS["plain"]
    if re.search(r"[-_.]t1[nc]\.nii", name_of_t1_files, re.IGNORECASE):
        return LAYOUTS["brats2023"]
    if re.search(r"[-_.]t1(ce)?\.nii", name_of_t1_files, re.IGNORECASE):
        return LAYOUTS["brats2021"]
    return LAYOUTS["plain"]


def layout_of_labels(labels: Mapping[str, int]) -> Layout:
    """Return the layout with these label values; a new one if none is known.

    Examples
    --------
    >>> layout_of_labels({"ED": 1, "NCR": 2, "ET": 3}).name
    'decathlon'
    """
    known = (_DECATHLON, LAYOUTS["brats2021"], LAYOUTS["brats2023"], LAYOUTS["brats2024"])
    same = (layout for layout in known if dict(layout.labels) == dict(labels))
    return next(same, Layout("dataset.json", dict(labels), _NAMES_2018))


def file_name(case: str, layout: Layout, what: str) -> str:
    """Return the file name of a modality (or ``truth``) of a case.

    Examples
    --------
    >>> file_name("BraTS2021_00001", LAYOUTS["brats2021"], "T1ce")
    'BraTS2021_00001_t1ce.nii.gz'
    """
    suffix = layout.suffixes.get(what, what.lower())
    return f"{case}{layout.separator}{suffix}.nii.gz" if layout.separator else f"{suffix}.nii.gz"


def numbered_name(layout: str | Layout, number: int) -> str:
    """Return a numbered case name in the style of a layout.

    The layout can be detected from the name, except for ``brats2024-ped``.

    Raises
    ------
    CaseError
        If the layout is unknown.

    Examples
    --------
    >>> numbered_name("brats2023", 7), numbered_name("brats2018", 7)
    ('BraTS-GLI-00007-000', 'Brats18_SYN_00007_1')
    """
    styles = {
        "brats2018": f"Brats18_SYN_{number:05d}_1",
        "brats2019": f"BraTS19_SYN_{number:05d}_1",
        "brats2020": f"BraTS20_Training_{number:03d}",
        "brats2021": f"BraTS2021_{number:05d}",
        "brats2023": f"BraTS-GLI-{number:05d}-000",
        "brats2024": f"BraTS-GLI-{number:05d}-100",
        "brats2024-ped": f"BraTS-PED-{number:05d}-000",
    }
    return styles.get(get_layout(layout).name, f"case_{number:05d}")
