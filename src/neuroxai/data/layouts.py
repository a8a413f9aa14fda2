"""How each year of BraTS names its files and numbers its labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError, suggestion
from neuroxai.data.case import CLASSES, Layout

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
            # Files named by modality alone: no case name in front, so no separator either.
            Layout("plain", _LABELS_2018, _NAMES_2018, ""),
        )
    }
)
"""Layout name to layout. Label 4 is enhancing tumor up to 2021 and a cavity in 2024."""

_CHILDREN_2024 = Layout("brats2024-ped", {"ET": 1, "NCR": 2, "ED": 4}, _NAMES_2023, "-")
_ONLY_BY_NAME: Mapping[str, Layout] = MappingProxyType({_CHILDREN_2024.name: _CHILDREN_2024})
"""Layouts that no file's name tells: the children's track names its files alike in every year."""

# The children's cystic component belongs to the core as its tumor that does not enhance does; what
# is written has the number of the latter.
_READ_ALIKE: Mapping[str, Mapping[int, str]] = MappingProxyType({_CHILDREN_2024.name: {3: "NCR"}})

_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "T1ce": ("t1ce", "t1c", "t1gd", "t1wce", "t1post", "t1km", r"ce-gadolinium[-_.]t1w"),
    "FLAIR": ("flair", "t2f", r"t2w?[-_.]?flair"),
    "T1": ("t1", "t1n", "t1w"),
    "T2": ("t2", "t2w"),
    "truth": ("seg", "segmentation", "truth", "label", "labels"),
}
_ENDINGS = [
    (
        modality,
        re.compile(rf"(?:(?P<prefix>.*?)[-_. ])??(?:{'|'.join(words)})", re.IGNORECASE | re.DOTALL),
    )
    for modality, words in _SPELLINGS.items()
]
_PREFIXES = (
    ("brats2018", r"brats18_.*"),
    ("brats2019", r"brats19_.*"),
    ("brats2020", r"brats20_.*"),
    ("brats2021", r"brats2021_.*"),
    # From 2024 on the timepoint of a post-treatment scan starts at 100.
    ("brats2024", r"brats-gli-\d+-[1-9]\d\d+"),
    ("brats2023", r"brats-[a-z]+-.*"),
)


def patient_id(name: str) -> str:
    """Return the patient of a case: its name without the time point of BraTS since 2023, or BIDS.

    Examples
    --------
    >>> patient_id("BraTS-GLI-00001-000"), patient_id("BraTS2021_00001"), patient_id("sub-7_ses-2")
    ('BraTS-GLI-00001', 'BraTS2021_00001', 'sub-7')
    """
    name = re.sub(r"^(BraTS-[A-Za-z]+-\d+)-\d+$", r"\1", name)
    return re.sub(r"^(sub-[A-Za-z0-9]+)_.*$", r"\1", name)


def get_layout(layout: str | Layout) -> Layout:
    """Look a layout up.

    Raises
    ------
    CaseError
        If there is none of that name.

    Examples
    --------
    >>> get_layout("brats2023").suffixes["T1ce"]
    't1c'
    """
    if isinstance(layout, Layout):
        return layout
    known = {**LAYOUTS, **_ONLY_BY_NAME}
    if layout not in known:
        raise CaseError(f"there is no layout '{layout}'; {suggestion(layout, known)}")
    return known[layout]


def parse_file_name(name: str) -> tuple[str, str] | None:
    """Split a file's name into what stands in front and the modality (or ``truth``) it names.

    Examples
    --------
    >>> parse_file_name("BraTS-GLI-00001-000-t1c.nii.gz")
    ('BraTS-GLI-00001-000', 'T1ce')
    >>> parse_file_name("FLAIR.nii"), parse_file_name("report.pdf")
    (('', 'FLAIR'), None)
    """
    stem = re.fullmatch(r"(.+)\.nii(\.gz)?", name, re.IGNORECASE | re.DOTALL)
    if stem is None or name.startswith("."):
        return None
    # "x_ce-gadolinium_T1w" ends in two spellings: the one that leaves the shorter prefix is meant.
    found = [
        (match["prefix"] or "", modality)
        for modality, ending in _ENDINGS
        if (match := ending.fullmatch(stem[1]))
    ]
    return min(found, key=lambda pair: len(pair[0]), default=None)


def is_brats_name(prefix: str) -> bool:
    """Return whether a case is named in a style of BraTS.

    Examples
    --------
    >>> is_brats_name("Brats18_2013_2_1"), is_brats_name("patient7")
    (True, False)
    """
    return any(re.fullmatch(pattern, prefix, re.IGNORECASE) for _, pattern in _PREFIXES)


def detect_layout(prefix: str, name_of_t1_files: str) -> Layout:
    """Tell the year from what stands in front of the modality, else from how T1 is parse_file_name.

    Parameters
    ----------
    prefix
        The case's name, as :func:`parse_file_name` returns it.
    name_of_t1_files
        The names of the case's T1 and T1ce files, in any order.

    Examples
    --------
    >>> detect_layout("BraTS-GLI-00001-101", "").name, detect_layout("", "t1.nii").name
    ('brats2024', 'plain')
    >>> detect_layout("patient7", "patient7_t1ce.nii.gz").name
    'brats2021'
    """
    for name, pattern in _PREFIXES:
        if re.fullmatch(pattern, prefix, re.IGNORECASE):
            return LAYOUTS[name]
    if not prefix:
        return LAYOUTS["plain"]
    if re.search(r"[-_.]t1[nc]\.nii", name_of_t1_files, re.IGNORECASE):
        return LAYOUTS["brats2023"]
    if re.search(r"[-_.]t1(ce)?\.nii", name_of_t1_files, re.IGNORECASE):
        return LAYOUTS["brats2021"]
    return LAYOUTS["plain"]


def file_name(case: str, layout: Layout, what: str) -> str:
    """Return the name of a case's file for a modality or ``truth``.

    Examples
    --------
    >>> file_name("BraTS2021_00001", LAYOUTS["brats2021"], "T1ce")
    'BraTS2021_00001_t1ce.nii.gz'
    """
    suffix = layout.suffixes.get(what, what.lower())
    return f"{case}{layout.separator}{suffix}.nii.gz" if layout.separator else f"{suffix}.nii.gz"


def numbered_name(layout: str | Layout, number: int) -> str:
    """Return a case name in a layout's style, from which the layout is detected again.

    But for ``brats2024-ped``, which no name tells.

    Raises
    ------
    CaseError
        If there is no such layout.

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


def encode_labels(indices: NDArray[Any], layout: str | Layout) -> NDArray[np.uint8]:
    """Turn indices into :data:`~neuroxai.data.case.CLASSES` into a layout's numbers, uint8.

    Raises
    ------
    CaseError
        If the layout has no number for a class that occurs.

    Examples
    --------
    >>> encode_labels(np.array([0, 1, 2, 3]), "brats2021").tolist()
    [0, 1, 2, 4]
    """
    layout = get_layout(layout)
    table = np.zeros(len(CLASSES), dtype=np.uint8)
    for index in np.unique(indices):
        if not 0 <= index < len(CLASSES) or index != int(index):
            raise CaseError(f"{index} is not the index of a class: {', '.join(CLASSES)}")
        if index and CLASSES[int(index)] not in layout.labels:
            raise CaseError(
                f"the layout {layout.name} has no number for the class {CLASSES[int(index)]}, "
                f"only for {', '.join(layout.labels)}; choose another layout"
            )
        if index:
            table[int(index)] = layout.labels[CLASSES[int(index)]]
    encoded: NDArray[np.uint8] = table[np.asarray(indices).astype(np.intp)]
    return encoded


def decode_labels(
    numbers: NDArray[Any], layout: str | Layout, file: str = "labels"
) -> NDArray[np.uint8]:
    """Turn a layout's numbers into indices into :data:`~neuroxai.data.case.CLASSES`, uint8.

    Raises
    ------
    CaseError
        If a number is not the layout's; ``file`` is named in the message.

    Examples
    --------
    >>> decode_labels(np.array([0, 1, 2, 3]), "brats2023").tolist()
    [0, 1, 2, 3]
    """
    layout = get_layout(layout)
    known = {0: 0} | {number: CLASSES.index(name) for name, number in layout.labels.items()}
    alike = _READ_ALIKE.get(layout.name, {})
    known |= {number: CLASSES.index(name) for number, name in alike.items()}
    values = [int(value) for value in np.unique(numbers)]
    strange = [value for value in values if value not in known]
    if strange:
        fitting = [
            other.name
            for other in LAYOUTS.values()
            if other.labels != layout.labels and {*values} <= {0, *other.labels.values()}
        ]
        shown = ", ".join(map(str, strange[:8])) + (", ..." if len(strange) > 8 else "")
        remedy = f"--layout {' or '.join(fitting)}" if fitting else "--layout"
        raise CaseError(
            f"{file}: holds the labels {shown}, but the layout {layout.name} knows only "
            f"0, {', '.join(f'{n} ({CLASSES[known[n]]})' for n in sorted(known) if n)}; "
            f"name the right layout ({remedy}) or repair the file"
        )
    table = np.zeros(max(known) + 1, dtype=np.uint8)
    for number, index in known.items():
        table[number] = index
    decoded: NDArray[np.uint8] = table[numbers]
    return decoded
