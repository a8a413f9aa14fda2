"""Choice of the files of a case among those that a folder has."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuroxai.core.errors import CaseError
from neuroxai.core.vocabulary import modality_key
from neuroxai.data.case_groups import (
    Group,
    Listing,
    cases_in,
    list_folder,
    other_images,
    select_channels,
    truth_candidates,
)
from neuroxai.data.file_names import parse_file_name
from neuroxai.data.layouts import (
    Layout,
    detect_layout,
    get_layout,
    is_brats_name,
    layout_of_labels,
)

SHOWN = 8
"""File names that a message lists."""


@dataclass(frozen=True)
class Found:
    """Files that a folder has for a case."""

    name: str
    folder: Path
    files: Mapping[str, Path]
    layout: Layout
    warnings: tuple[str, ...] = ()
    listing: Listing | None = None
    case: str = ""


def find_in_folder(
    path: Path, required: Sequence[str], given: Mapping[str, Path], channels: Sequence[str]
) -> Found:
    """Find the files of a case in its folder, or next to one of its files."""
    folder = path if path.is_dir() else path.parent
    listing = list_folder(folder, (*required, *channels))
    wanted = None if path.is_dir() else parse_file_name(path.name, (*required, *channels))
    if wanted is None:
        groups = cases_in(listing)
        if len(groups) > 1:
            raise CaseError(
                f"{folder}: contains the files of {len(groups)} cases, for example of "
                f"{groups[0].case} and {groups[1].case}; name one file of a case, for example "
                f"{groups[0].first}"
            )
        if groups and len(listing.groups) > 1:
            groups = _united(listing, required)
    else:
        group = listing.groups.get(wanted.case.lower())
        groups = [] if group is None else [group]
    if not groups and wanted is not None and len(required) == 1 and not wanted.labels:
        groups = [Group(wanted.case, {modality_key(required[0]): [(path, "")]})]
    missing = [what for what in required if what not in given]
    return _of_groups(folder, listing, groups, missing, channels)


def _united(listing: Listing, required: Sequence[str]) -> list[Group]:
    """Return the only complete group of a case, or all of them."""
    keys = {modality_key(what) for what in required}
    complete = [group for group in listing.groups.values() if keys <= {*group.scans}]
    return complete if len(complete) == 1 else list(listing.groups.values())


def _of_groups(
    folder: Path,
    listing: Listing,
    groups: Sequence[Group],
    required: Sequence[str],
    channels: Sequence[str],
) -> Found:
    """Choose the files of a case from its groups of files; usually there is one group."""
    keys = {what: modality_key(what) for what in required}
    groups = [g for g in groups if keys.values() & g.scans.keys() or not g.scans] or list(groups)
    case, warnings = case_of(folder, groups)
    files: dict[str, Path] = {}
    scans: dict[str, list[tuple[Path, str]]] = {}
    for group in groups:
        selection, assumed = select_channels(group, listing, channels)
        for key, path in selection.items():
            scans.setdefault(key, []).append((path, ""))
        for key, candidates in group.scans.items():
            scans.setdefault(key, []).extend(candidates)
        warnings += [f"{folder}: {assumed}, the order of the network; check it"] if assumed else []
    for what, key in keys.items():
        if key in scans:
            files[what] = _choose(folder, what, scans, keys.values())
    layout = _layout(folder, listing, groups, case, files)
    truth = truth_candidates(listing, case)
    if len(truth) > 1:
        raise CaseError(_ambiguous(folder, "truth", truth))
    if truth:
        files["truth"] = truth[0]
    name = case or Path(os.path.abspath(folder)).name or "case"  # noqa: PTH100 (lexical: keep links)
    return Found(name, folder, files, layout, tuple(warnings), listing, case)


def case_of(folder: Path, groups: Sequence[Group], *, check: bool = True) -> tuple[str, list[str]]:
    """Return the name of a case from its groups of files, and warnings."""
    if len(groups) == 1:
        return groups[0].case, []
    names = sorted(group.case for group in groups)
    shown = ", ".join(name or "(no name)" for name in names)
    if check and any(map(is_brats_name, names)):
        raise CaseError(
            f"{folder}: contains files of different cases: {shown}; expected a single case"
        )
    if len({name.split("_")[0] for name in names}) > 1:
        return "", [f"{folder}: the file names belong to different cases: {shown}"]
    return "", []


def _choose(
    folder: Path,
    what: str,
    scans: Mapping[str, list[tuple[Path, str]]],
    keys: Iterable[str],
) -> Path:
    """Choose among the files of a modality, which BIDS entities distinguish."""
    candidates = scans[modality_key(what)]
    if len(candidates) == 1:
        return candidates[0][0]
    by_variant: dict[str, list[Path]] = {}
    for path, variant in candidates:
        by_variant.setdefault(variant, []).append(path)
    complete = [
        variant
        for variant in by_variant
        if all(variant in {v for _, v in scans.get(key, [])} for key in keys)
    ]
    # Files of one kind for all modalities, otherwise the unprocessed one.
    chosen = complete if len(complete) == 1 else [variant for variant in by_variant if not variant]
    if len(chosen) == 1 and len(by_variant[chosen[0]]) == 1:
        return by_variant[chosen[0]][0]
    raise CaseError(_ambiguous(folder, what, [path for path, _ in candidates]))


def _ambiguous(folder: Path, what: str, paths: Sequence[Path]) -> str:
    names = " and ".join(sorted(path.name for path in paths))
    return f"{folder}: several files for {what}: {names}; keep one, or pass the file explicitly"


def _layout(
    folder: Path,
    listing: Listing,
    groups: Sequence[Group],
    case: str,
    files: Mapping[str, Path],
) -> Layout:
    by_channel = any(group.numbered or group.whole for group in groups)
    if by_channel and listing.dataset is not None and listing.dataset.labels is not None:
        return layout_of_labels(listing.dataset.labels)
    if any(group.whole for group in groups):
        return get_layout("decathlon")
    return detect_layout(case, " ".join(files[m].name for m in ("T1", "T1ce") if m in files))


def list_unused(listing: Listing, case: str, used: Iterable[Path]) -> list[str]:
    """Return a sentence that lists the images of a case that are not used."""
    names = [path.name for path in other_images(listing, case, used)]
    if not names:
        return []
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" * (len(names) > SHOWN))
    return [f"{listing.folder}: found and not used: {shown}"]
