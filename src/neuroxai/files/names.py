"""Names of result files and folders."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

_SUBJECT = re.compile(r"sub-[0-9a-zA-Z+]+(_ses-[0-9a-zA-Z+]+)?")
"""A case name that is already a BIDS subject, with or without a session."""


def slug(text: str) -> str:
    """Return a text as one word for a file name; letters of any script are kept.

    Examples
    --------
    >>> slug("WT/../x y")
    'WT-x-y'
    """
    return re.sub(r"[^\w+]+", "-", text).strip("-") or "unnamed"


def entity_value(text: str) -> str:
    """Return a text as the value of a BIDS entity: letters and digits, in camel case.

    Accents are removed, and other letters become their code point. Numbers that would merge are
    separated by ``+``, which BIDS allows.

    Examples
    --------
    >>> [entity_value(text) for text in ("grad_cam", "layer1.0.conv2", "Größe", "<3 cm")]
    ['gradCam', 'layer1+0Conv2', 'Groxdfe', '3Cm']
    """
    value = ""
    for word in _ascii_words(text):
        joined = word[0].upper() + word[1:] if value else word
        value += f"+{joined}" if value[-1:].isdigit() and joined[0].isdigit() else joined
    return value or "unnamed"


def _ascii_words(text: str) -> list[str]:
    plain = "".join(
        letter if letter.isascii() or not letter.isalnum() else f"x{ord(letter):x}"
        for letter in unicodedata.normalize("NFKD", text)
        if not unicodedata.combining(letter)
    )
    return re.findall(r"[0-9a-zA-Z]+", plain)


def bids_stem(case: str, suffix: str = "", **entities: str) -> str:
    """Return a BIDS file name without extension: subject, entities in the given order, suffix.

    Examples
    --------
    >>> bids_stem("BraTS2021_00007", "statmap", label="ET", desc="grad_cam")
    'sub-BraTS2021+00007_label-ET_desc-gradCam_statmap'
    >>> bids_stem("sub-01_ses-2", "dseg")
    'sub-01_ses-2_dseg'
    """
    subject = case if _SUBJECT.fullmatch(case) else f"sub-{entity_value(case)}"
    values = [f"{key}-{entity_value(value)}" for key, value in entities.items()]
    return "_".join(filter(None, (subject, *values, suffix)))


def sidecar(path: Path) -> Path:
    """Return the path of the BIDS sidecar, a JSON file next to a NIfTI file.

    Examples
    --------
    >>> sidecar(Path("a.nii.gz")).name
    'a.json'
    """
    return path.with_name(f"{path.name.removesuffix('.gz').removesuffix('.nii')}.json")


def results_folder(out: Path | None, name: str) -> Path:
    """Return the folder for results, by default ``neuroxai-out/NAME``.

    Examples
    --------
    >>> results_folder(None, "BraTS2021_00001").as_posix()
    'neuroxai-out/BraTS2021_00001'
    """
    return out if out is not None else Path("neuroxai-out") / slug(name)
