"""Files of a folder, grouped by the case that their names give."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuroxai.core.vocabulary import CLASSES, modality_key, standard_class
from neuroxai.data.file_names import FileName, image_stem, parse_file_name
from neuroxai.data.layouts import is_brats_name

_DATATYPES = ("anat", "dwi", "perf", "swi", "fmap", "func", "pet")
"""Folders of a BIDS subject or session; the files of a case may be in several of them."""

_NO_CASES = re.compile(r"labels.*|derivatives|sourcedata|images_segm|automated_segm", re.IGNORECASE)
"""Folders of a data set that repeat its cases, as labels or processed."""

_TRUTH_FOLDERS = {"imagestr": "labelsTr", "imagests": "labelsTs"}
_DECATHLON_CASE = re.compile(r"BRATS_\d+", re.IGNORECASE)
DECATHLON_CHANNELS = ("FLAIR", "T1", "T1ce", "T2")
"""Volumes of a file of Task01_BrainTumour of the Medical Segmentation Decathlon, in order."""

_DATASET = "dataset.json"
_DATASET_BYTES = 2**23

_TRUTH_WORDS = {"tumor", "tumour", "lesion", "glioma", "manual", "expert", "final", "corrected"}
"""Words that a label file of a tumor may have between the name of the case and ``seg``. Anything
else, for example brain or tissue, names labels of something else."""


@dataclass
class Group:
    """Files of one case.

    Attributes
    ----------
    case
        Name of the case; empty for files named by their modality alone.
    scans
        Modality key to the candidates for it, as file and variant.
    numbered
        Channel number to file, for names of nnU-Net.
    whole
        Files that hold all channels of the case, as in the Medical Segmentation Decathlon.
    """

    case: str
    scans: dict[str, list[tuple[Path, str]]] = field(default_factory=dict)
    numbered: dict[int, Path] = field(default_factory=dict)
    whole: list[Path] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Number of modalities that were found."""
        return len(self.scans) or len(self.numbered) or len(self.whole)

    @property
    def first(self) -> Path:
        """A file that represents the case."""
        named = [path for found in self.scans.values() for path, _ in found]
        return min([*named, *self.numbered.values(), *self.whole])


@dataclass(frozen=True)
class Dataset:
    """Content of the ``dataset.json`` of nnU-Net or the Medical Segmentation Decathlon.

    Attributes
    ----------
    channels
        Modality keys in the order of the channels.
    labels
        Class of :data:`~neuroxai.core.vocabulary.CLASSES` to label value; None if the labels are
        not those of tumors.
    """

    channels: tuple[str, ...]
    labels: Mapping[str, int] | None


@dataclass(frozen=True)
class Listing:
    """Images in the folder of a case, by what their names say.

    Attributes
    ----------
    folder
        The folder.
    images
        All images in it with the parts of their names, sorted.
    groups
        Name of the case in lowercase to its files.
    dataset
        Description of the data set, if there is one.
    """

    folder: Path
    images: tuple[tuple[Path, FileName], ...]
    groups: Mapping[str, Group]
    dataset: Dataset | None


def list_folder(folder: Path, modalities: Sequence[str] = ()) -> Listing:
    """List the images in a folder, and in the other data-type folders of a BIDS subject.

    Parameters
    ----------
    folder
        Folder of one or several cases.
    modalities
        Modalities to recognize in addition to those of BraTS.

    Raises
    ------
    OSError
        If the folder cannot be read.
    """
    images = []
    for place in _places(folder):
        for entry in sorted(place.iterdir()):
            name = parse_file_name(entry.name, modalities)
            if name is not None and not entry.is_dir():
                images.append((entry, name))
    dataset = _read_dataset(folder) if any(n.modality is None for _, n in images) else None
    groups: dict[str, Group] = {}

    def group(case: str) -> Group:
        return groups.setdefault(case.lower(), Group(case))

    in_labels = bool(_NO_CASES.fullmatch(folder.name))
    for path, name in images:
        if name.modality is not None:
            group(name.case).scans.setdefault(name.modality, []).append((path, name.variant))
        elif name.number is not None:
            group(name.case).numbered[name.number] = path
        elif not name.labels and not in_labels and _is_whole(path, dataset):
            group(name.case).whole.append(path)
    for case in [case for case, found in groups.items() if found.numbered]:
        found = groups[case]
        if 0 not in found.numbered:  # the number is not that of a channel
            found.numbered.clear()
        elif found.whole:  # CASE.nii.gz next to CASE_0000.nii.gz
            found.whole.clear()
    return Listing(
        folder,
        tuple(images),
        {case: found for case, found in groups.items() if found.size},
        dataset,
    )


def cases_in(listing: Listing) -> list[Group]:
    """Return the groups of a folder that are cases of their own.

    Files of one case may have different prefixes; several cases repeat a modality.
    """
    groups = list(listing.groups.values())
    repeated = any(
        set(one.scans) & set(other.scans)
        or (one.numbered and other.numbered)
        or (one.whole and other.whole)
        for index, one in enumerate(groups)
        for other in groups[:index]
    )
    if not repeated:
        return groups[:1]
    most = max(group.size for group in groups)
    return [group for group in groups if 2 * group.size >= most]


def find_case_paths(
    folder: Path, modalities: Sequence[str] = (), levels: int = 4
) -> Iterator[Path]:
    """Yield the folder of each case, or a file of it where a folder has several cases."""
    try:
        found = cases_in(list_folder(folder, modalities))
        subfolders = sorted(
            entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_dir()
        )
    except OSError:  # skip folders without read permission
        return
    if len(found) > 1:
        yield from (group.first for group in found)
    elif found:
        yield folder
    elif levels > 1:
        for entry in subfolders:
            if not _NO_CASES.fullmatch(entry.name):
                yield from find_case_paths(entry, modalities, levels - 1)


def _places(folder: Path) -> list[Path]:
    """Return the folders that hold the images of a case."""
    if folder.name.lower() in _DATATYPES and folder.parent.name.lower().startswith(
        ("sub-", "ses-")
    ):
        others = [folder.parent / name for name in _DATATYPES if name != folder.name]
        return [folder, *(place for place in others if place.is_dir())]
    inside = [folder / name for name in _DATATYPES if (folder / name).is_dir()]
    bids = folder.name.lower().startswith(("sub-", "ses-"))
    return [folder, *inside] if bids else [folder]


def _is_whole(path: Path, dataset: Dataset | None) -> bool:
    """Return whether a file without a modality in its name holds all channels of a case."""
    stem = image_stem(path.name) or ""
    if _DECATHLON_CASE.fullmatch(stem):
        return True
    return dataset is not None and path.parent.name.lower() in _TRUTH_FOLDERS


def select_channels(
    group: Group, listing: Listing, channels: Sequence[str]
) -> tuple[dict[str, Path], str | None]:
    """Return modality key to file, for files that are numbered or hold all channels.

    Parameters
    ----------
    channels
        Modalities of the network in its order, which number files without a ``dataset.json``.

    Returns
    -------
    dict
        Empty if the number of files is not that of the channels.
    str or None
        How the order was chosen, if it had to be assumed.
    """
    keys = [modality_key(name) for name in channels]
    if group.numbered:
        known = listing.dataset.channels if listing.dataset is not None else ()
        order = known if len(known) > max(group.numbered) else keys
        if order is keys and sorted(group.numbered) != list(range(len(keys))):
            return {}, None
        found = {order[number]: path for number, path in group.numbered.items()}
        return found, None if order is known else f"numbered files were read as {_named(channels)}"
    if group.whole:
        path = group.whole[0]
        order = listing.dataset.channels if listing.dataset is not None else ()
        if len(order) == 1:
            return {order[0]: path}, None
        order = order or DECATHLON_CHANNELS
        return {key: Path(f"{path}[{index}]") for index, key in enumerate(order)}, None
    return {}, None


def _named(channels: Sequence[str]) -> str:
    return ", ".join(f"{number:04d} {name}" for number, name in enumerate(channels))


def truth_candidates(listing: Listing, case: str) -> list[Path]:
    """Return the label files that may be the truth of a case, the closest names only.

    Labels of the brain, of tissues or of another case are left out.
    """
    ranked: dict[int, list[Path]] = {}
    for path, name in listing.images:
        rank = _truth_rank(name, case, listing.folder.name)
        if rank is not None:
            ranked.setdefault(rank, []).append(path)
    if ranked:
        return ranked[min(ranked)]
    return [path for path in _truth_elsewhere(listing.folder, case) if path.is_file()]


def _truth_rank(name: FileName, case: str, folder: str) -> int | None:
    if not name.labels:
        return None
    if name.case.lower() == case.lower():
        return 0
    if not name.case or (not case and name.case.lower() == folder.lower()):
        return 1
    rest = name.case.lower().removeprefix(case.lower())
    if rest != name.case.lower() or not case:
        words = re.findall(r"[^-_. ]+", rest)
        return 2 if all(word in _TRUTH_WORDS for word in words) else None
    return 3 if is_brats_name(name.case) else None


def _truth_elsewhere(folder: Path, case: str) -> Iterable[Path]:
    """Yield where nnU-Net, the Decathlon and UPENN-GBM keep the labels of a case."""
    labels = _TRUTH_FOLDERS.get(folder.name.lower())
    suffixes = (".nii.gz", ".nii")
    if labels is not None:
        yield from (folder.parent / labels / f"{case}{suffix}" for suffix in suffixes)
    for above in (folder, folder.parent):
        if above.name.lower() == "images_structural":
            place = above.parent / "images_segm"
            yield from (place / f"{case}_segm{suffix}" for suffix in suffixes)


def _read_dataset(folder: Path) -> Dataset | None:
    """Read the ``dataset.json`` of a folder or of the one above; None without a usable one."""
    for place in (folder, folder.parent):
        path = place / _DATASET
        try:
            if not path.is_file() or path.stat().st_size > _DATASET_BYTES:
                continue
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        channels = content.get("channel_names") or content.get("modality") if content else None
        if isinstance(channels, Mapping) and {*channels} == {*map(str, range(len(channels)))}:
            keys = [modality_key(str(channels[str(index)])) for index in range(len(channels))]
            return Dataset(tuple(keys), _tumor_labels(content.get("labels")))
    return None


def _tumor_labels(labels: Any) -> Mapping[str, int] | None:
    """Return class to label value from the labels of a ``dataset.json`` in any of its forms."""
    if not isinstance(labels, Mapping):
        return None
    members: dict[int, set[str]] = {}
    for key, value in labels.items():
        # The Decathlon maps numbers to names, nnU-Net names to numbers or lists of numbers.
        name, numbers = (str(value), [key]) if str(key).isdigit() else (str(key), value)
        for number in numbers if isinstance(numbers, list) else [numbers]:
            if str(number).isdigit():
                members.setdefault(int(number), set()).add(standard_class(name))
    found: dict[str, int] = {}
    for number, names in members.items():
        if number == 0 or names == {"background"}:
            continue
        exact = names & {*CLASSES}
        # Of overlapping regions, what is in the core but does not enhance is NCR, and so on.
        regions = {"TC": "NCR", "WT": "ED"}
        known = next(
            (name for name in ("ET", *sorted(exact)) if name in names),
            next((regions[name] for name in regions if name in names), None),
        )
        if known is None or known in found:
            return None
        found[known] = number
    return found or None


def other_images(listing: Listing, case: str, used: Iterable[Path]) -> list[Path]:
    """Return the images of a case that are not used."""
    taken = {os.fspath(path).partition("[")[0] if "[" in path.name else os.fspath(path)
             for path in used}  # fmt: skip
    several = len(cases_in(listing)) > 1
    return [
        path
        for path, name in listing.images
        if os.fspath(path) not in taken
        and (not several or name.case.lower().startswith(case.lower()))
    ]
