"""Parts of the file names of scans: case, modality, channel number and BIDS entities."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from neuroxai.core.vocabulary import MODALITIES, modality_key

IMAGE_SUFFIXES = (".nii", ".nii.gz")
"""Suffixes of images that can be read, in lowercase."""

_SUFFIX = re.compile(
    rf"(.+?)({'|'.join(re.escape(suffix) for suffix in sorted(IMAGE_SUFFIXES, key=len)[::-1])})",
    re.IGNORECASE | re.DOTALL,
)
_WORD = re.compile(r"[^-_. ]+")
_NUMBERED = re.compile(r"(.+)_(00\d\d)", re.DOTALL)
_LABELS = re.compile(
    r"(?:(?:brain)?(?:tumou?r|lesion|glioma))?(?:seg|segm|segmentation|truth|groundtruth|gt|labels?)|gtv"
)
_LABEL_SUFFIXES = ("dseg", "mask", "probseg", "roi")
_TUMOR = re.compile(r"tumou?r|lesion|glioma|gtv", re.IGNORECASE)
_AFTER_CONTRAST = re.compile(
    r"post(?:c|g|k|$)|^post|contrast|gad|gd$|^gd|^ce$|^km$|^t1w?(?:c|ce|gd|post)$", re.IGNORECASE
)
_BEFORE_CONTRAST = re.compile(r"^(?:no|none|non|without|wo|pre|native|0)", re.IGNORECASE)
_LONGEST = 3
"""Words of a modality or of a label file, as in ``T1_post_contrast``."""


@dataclass(frozen=True)
class FileName:
    """Parts of a file name.

    Attributes
    ----------
    case
        Name of the case; empty in a file named by its modality alone.
    modality
        Modality as :func:`~neuroxai.core.vocabulary.modality_key` names it; None without one.
    variant
        BIDS entities other than subject, session and contrast agent, for example ``run-1``.
    number
        Number of the channel in a name of nnU-Net, ``CASE_0000``.
    labels
        Whether the name is that of labels, which may be the truth.
    """

    case: str
    modality: str | None = None
    variant: str = ""
    number: int | None = None
    labels: bool = False


def image_stem(name: str) -> str | None:
    """Return a file name without its suffix; None for hidden files and other types.

    Examples
    --------
    >>> image_stem("T1.NII.gz"), image_stem("report.pdf"), image_stem("._t1.nii")
    ('T1', None, None)
    """
    match = _SUFFIX.fullmatch(name)
    return None if match is None or name.startswith(".") else match[1]


def parse_file_name(name: str, modalities: Collection[str] = ()) -> FileName | None:
    """Return the parts of the name of an image; None if it is not the name of an image.

    Parameters
    ----------
    name
        File name without folders.
    modalities
        Modalities to recognize in addition to those of BraTS, for example ADC.

    Examples
    --------
    >>> parse_file_name("BraTS-GLI-00001-000-t1c.nii.gz")
    FileName(case='BraTS-GLI-00001-000', modality='T1ce', variant='', number=None, labels=False)
    >>> parse_file_name("sub-1_ce-gd_run-2_T1w.nii").modality
    'T1ce'
    >>> parse_file_name("P1_ADC.nii.gz").modality, parse_file_name("P1_ADC.nii", ["ADC"]).modality
    (None, 'adc')
    >>> parse_file_name("BRATS_001_0003.nii.gz").number, parse_file_name("report.pdf")
    (3, None)
    """
    stem = image_stem(name)
    if stem is None:
        return None
    if numbered := _NUMBERED.fullmatch(stem):
        return FileName(numbered[1], number=int(numbered[2]))
    known = {*MODALITIES, *map(modality_key, modalities)}
    head, _, tail = stem.rpartition("_")
    if re.match(r"sub-[a-z0-9]", stem, re.IGNORECASE) and head:
        if (key := modality_key(tail)) in known:
            return _bids(head, key)
        if tail.lower() in _LABEL_SUFFIXES or _LABELS.fullmatch(_squeezed(tail)):
            return _bids_labels(head, tail)
    words = list(_WORD.finditer(stem))
    for count in range(min(_LONGEST, len(words)), 0, -1):
        start = words[-count].start()
        case = stem[:start].rstrip("-_. ")
        key = modality_key(stem[start:])
        if key in known:
            return _bids(case, key) if case.lower().startswith("sub-") else FileName(case, key)
        if _LABELS.fullmatch(_squeezed(stem[start:])):
            return FileName(case, labels=True)
    return FileName(stem)


def _squeezed(text: str) -> str:
    return re.sub(r"[\W_]", "", text.lower())


def _bids(head: str, modality: str) -> FileName:
    """Return the parts of a name ``sub-…_MODALITY``, with its contrast agent."""
    case, entities = _entities(head)
    agent, acquisition = entities.pop("ce", None), entities.get("acq", "")
    after = (
        not _BEFORE_CONTRAST.match(agent)
        if agent is not None
        else bool(_AFTER_CONTRAST.search(acquisition)) and not _BEFORE_CONTRAST.match(acquisition)
    )
    if after and modality != "T1ce":
        # An image after contrast agent is not the one without, whatever the sequence.
        modality = "T1ce" if modality == "T1" else f"{modality.lower()}ce"
        if acquisition and agent is None:
            entities.pop("acq")
    return FileName(case, modality, _variant(entities))


def _bids_labels(head: str, suffix: str) -> FileName:
    case, entities = _entities(head)
    described = f"{entities.get('desc', '')} {entities.get('label', '')}".strip()
    named = bool(_TUMOR.search(described))
    labels = (named if suffix.lower() == "dseg" or described else True) and (
        suffix.lower() not in ("mask", "probseg", "roi")
    )
    return FileName(case, variant=_variant(entities), labels=labels)


def _entities(head: str) -> tuple[str, dict[str, str]]:
    """Split the part of a BIDS name before its suffix into the case and the other entities."""
    case, entities = [], {}
    for part in head.split("_"):
        key, dash, value = part.partition("-")
        if dash and key.lower() not in ("sub", "ses"):
            entities[key.lower()] = value
        else:
            case.append(part)
    return "_".join(case), entities


def _variant(entities: dict[str, str]) -> str:
    return "_".join(f"{key}-{value}" for key, value in sorted(entities.items()))
