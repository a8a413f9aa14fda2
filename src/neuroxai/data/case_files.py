"""Files of a case, recognized by their names; importable without NumPy or torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuroxai.core.errors import CaseError, suggestion
from neuroxai.core.vocabulary import MODALITIES, modality_key
from neuroxai.data.case_groups import (
    Group,
    find_case_paths,
    list_folder,
    other_images,
    truth_candidates,
)
from neuroxai.data.case_match import SHOWN, Found, case_of, find_in_folder, list_unused
from neuroxai.data.file_names import image_stem, parse_file_name
from neuroxai.data.layouts import Layout, detect_layout, file_name, get_layout

StrPath = str | os.PathLike[str]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class CaseFiles:
    """Files of a case, before any of them is read.

    Attributes
    ----------
    name
        Name of the case.
    folder
        Folder of the case; None if every file was named.
    files
        Modality to file, in the requested order; ``truth`` last, if present.
    layout
        Requested or detected layout.
    warnings
        Inconsistencies that do not prevent reading.
    """

    name: str
    folder: Path | None
    files: Mapping[str, Path]
    layout: Layout
    warnings: tuple[str, ...] = ()


def locate_case(
    path: StrPath | None = None,
    *,
    modalities: Sequence[str] = MODALITIES,
    files: Mapping[str, StrPath] | None = None,
    layout: str | None = None,
    channels: Sequence[str] = (),
) -> CaseFiles:
    """Find the files of a case; none of them is opened.

    Parameters
    ----------
    path, modalities, files, layout, channels
        As for :func:`~neuroxai.data.brats.read_case`.

    Raises
    ------
    CaseError
        If the folder is not a case, a modality is missing or ambiguous, or the layout is unknown.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("BraTS2021_00001_t1.nii.gz", "BraTS2021_00001_seg.nii.gz"):
    ...     (folder / name).touch()
    >>> found = locate_case(folder, modalities=["T1"])
    >>> found.name, found.layout.name, list(found.files)
    ('BraTS2021_00001', 'brats2021', ['T1', 'truth'])
    """
    required = tuple(dict.fromkeys(modalities))
    if not required:
        raise CaseError("no modality was requested; name at least one, for example FLAIR")
    requested_layout = get_layout(layout) if layout is not None else None
    given = _given_files(files or {}, required)
    if path is None:
        found = _of_given(given)
    else:
        found = find_in_folder(check_case(path), required, given, channels or required)
    selected = {**found.files, **given}
    case_layout = requested_layout or found.layout
    _check_complete(path, required, selected, case_layout, found)
    if "truth" in selected and requested_layout is None:
        _check_pediatric(found.name, selected["truth"])
    ordered = {what: selected[what] for what in (*required, "truth") if what in selected}
    warnings = [*found.warnings]
    if found.listing is not None and not given:
        warnings += list_unused(found.listing, found.case, ordered.values())
    folder = None if path is None else found.folder
    return CaseFiles(found.name, folder, ordered, case_layout, tuple(warnings))


def reference_modality(case: CaseFiles, resample_to: str | None = None) -> str:
    """Return the modality whose grid is that of the case: the requested one, or the first.

    Raises
    ------
    CaseError
        If the requested one is not read.
    """
    names = [what for what in case.files if what != "truth"]
    if resample_to is None:
        return names[0]
    wanted = modality_key(resample_to)
    found = [what for what in names if what == resample_to or modality_key(what) == wanted]
    if not found:
        raise CaseError(
            f"{case.name}: cannot be resampled to {resample_to!r}, which is not read; "
            f"{suggestion(resample_to, names)}"
        )
    return found[0]


def _check_pediatric(name: str, truth: Path) -> None:
    if name.lower().startswith("brats-ped-"):
        raise CaseError(
            f"{truth}: the label values of BraTS-PED depend on the year; name the "
            "layout, brats2023 (ET is 3) or brats2024-ped (ET is 1)"
        )


def found_modalities(
    path: StrPath | None, files: Mapping[str, StrPath] | None = None
) -> tuple[str, ...]:
    """Return the modalities that a case has, in the order of BraTS, then others that are given.

    Raises
    ------
    CaseError
        If the folder cannot be read, or there is no modality.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("flair.nii.gz", "t1.nii.gz", "seg.nii.gz"):
    ...     (folder / name).touch()
    >>> found_modalities(folder, {"ADC": "adc.nii"})
    ('T1', 'FLAIR', 'ADC')
    """
    names = dict.fromkeys(files or {})
    if path is not None:
        found = find_in_folder(check_case(path), MODALITIES, {}, MODALITIES)
        names |= dict.fromkeys(found.files)
        if not {*names} - {"truth"}:
            _check_complete(path, MODALITIES, {}, found.layout, found)
    names.pop("truth", None)
    if not names:
        raise CaseError("no file of a modality was given; give for example T1 and FLAIR")
    return tuple(dict.fromkeys((*(name for name in MODALITIES if name in names), *names)))


def is_picture(path: Path) -> bool:
    """Return whether a file name has the extension of a picture.

    Examples
    --------
    >>> is_picture(Path("a/b.JPG")), is_picture(Path("a/b.nii.gz"))
    (True, False)
    """
    return path.suffix.lower() in PICTURE_SUFFIXES


def find_cases(folder: StrPath, modalities: Sequence[str] = ()) -> list[Path]:
    """Return the cases in a cohort folder, sorted: their folders, or one file of each.

    A file represents a case in a folder with several cases, as in nnU-Net. BIDS subject and session
    folders are searched too.

    Parameters
    ----------
    folder
        Folder of the cohort.
    modalities
        Modalities to recognize in addition to those of BraTS, for example ADC.

    Raises
    ------
    CaseError
        If the folder cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> (root / "HGG" / "Brats18_A_1").mkdir(parents=True)
    >>> (root / "HGG" / "Brats18_A_1" / "Brats18_A_1_t1.nii.gz").touch()
    >>> [case.name for case in find_cases(root)]
    ['Brats18_A_1']
    """
    return sorted(find_case_paths(check_folder(folder, "a folder of cases"), modalities))


def case_name(path: StrPath, modalities: Sequence[str] = ()) -> str:
    """Return the case name that :func:`read_case` would use, without reading any image.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp(), "sub-01", "anat")
    >>> place.mkdir(parents=True)
    >>> (place / "sub-01_T1w.nii.gz").touch()
    >>> case_name(place)
    'sub-01'
    """
    place = Path(path)
    if not place.is_dir():
        parsed = parse_file_name(place.name, modalities)
        return place.stem if parsed is None else parsed.case or place.parent.name
    groups = list(list_folder(place, modalities).groups.values())
    case = case_of(place, groups)[0] if groups else ""
    return case or Path(os.path.abspath(place)).name or "case"  # noqa: PTH100 (lexical: keep links)


def files_of(path: StrPath, modalities: Sequence[str] = ()) -> list[Path]:
    """Return the images of a case, whether or not they are used.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("A_0000.nii.gz", "A_0001.nii.gz", "B_0000.nii.gz"):
    ...     (folder / name).touch()
    >>> [file.name for file in files_of(folder / "A_0000.nii.gz")]
    ['A_0000.nii.gz', 'A_0001.nii.gz']
    """
    place = Path(path)
    listing = list_folder(place if place.is_dir() else place.parent, modalities)
    case = case_name(place, modalities)
    images = [file for file, _ in listing.images] if place.is_dir() else (
        other_images(listing, case, ())
    )  # fmt: skip
    return sorted({*images, *truth_candidates(listing, case)})


def check_case(path: StrPath) -> Path:
    """Return the path of a case, a folder or an image in one.

    Raises
    ------
    CaseError
        If it does not exist, is another file, or cannot be read.
    """
    place = Path(path)
    try:
        if place.is_file() and image_stem(place.name) is not None:
            return place
    except (OSError, ValueError):  # reported below
        pass
    return check_folder(path, "the folder of a case, or an image in it")


def check_folder(path: StrPath, expected: str = "the folder of a case") -> Path:
    """Return a folder as a path.

    Raises
    ------
    CaseError
        If it does not exist, is a file, or cannot be read.
    """
    folder = Path(path)
    try:
        if not folder.is_dir():
            kind = "is a file" if folder.exists() else "does not exist"
            raise CaseError(f"{folder}: {kind}; expected {expected}")
        with os.scandir(folder) as entries:
            next(entries, None)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CaseError(f"{folder}: cannot be read ({reason})") from error
    return folder


def _given_files(files: Mapping[str, StrPath], required: Sequence[str]) -> dict[str, Path]:
    """Return the files that the caller names, by the requested name of the modality."""
    known = {modality_key(what): what for what in (*MODALITIES, *required)}
    given: dict[str, Path] = {}
    for key, file in files.items():
        labels = parse_file_name(f"{key}.nii")
        is_truth = labels is not None and labels.labels and not labels.case
        what = "truth" if is_truth else key if key in required else known.get(modality_key(key))
        if what is None:
            hint = suggestion(key, (*MODALITIES, *required, "truth"))
            raise CaseError(f"{file}: '{key}' is not a modality; {hint}")
        if what in given:
            raise CaseError(f"{file}: {what} is given twice; the other file is {given[what]}")
        given[what] = Path(file)
    return given


def _of_given(files: Mapping[str, Path]) -> Found:
    """Return the case of files that the caller names, all of them."""
    names = {what: file.name.partition("[")[0] for what, file in files.items()}
    parsed = [parse_file_name(name) for name in names.values()]
    recognized = {p.case for p in parsed if p and (p.modality or p.labels or p.number is not None)}
    same = {os.fspath(file).partition("[")[0] for file in files.values()}
    if len(same) == 1 < len(files):  # volumes of one file
        recognized = {image_stem(names[next(iter(names))]) or ""}
    folder = next(iter(files.values()), Path("case")).parent
    groups = [Group(case) for case in sorted(recognized)]
    case, warnings = ("", []) if not groups else case_of(folder, groups, check=False)
    t1_files = " ".join(names[what] for what in ("T1", "T1ce") if what in names)
    name = case or Path(os.path.abspath(folder)).name or "case"  # noqa: PTH100 (lexical: keep links)
    return Found(name, folder, {}, detect_layout(case, t1_files), tuple(warnings))


def _check_complete(
    path: StrPath | None,
    required: Sequence[str],
    files: Mapping[str, Path],
    layout: Layout,
    found: Found,
) -> None:
    missing = [what for what in required if what not in files]
    if not missing:
        return
    if path is None:
        got = ", ".join(files) or "none"
        raise CaseError(f"no file was given for {', '.join(missing)}; got {got}")
    folder = found.folder
    names = sorted(entry.name for entry in folder.iterdir())
    here = [what for what in files if what != "truth"]
    if not here and Path(path).is_dir():
        cases = sorted(find_case_paths(folder, required, levels=3))
        if cases and cases != [folder]:
            raise CaseError(
                f"{folder}: contains {len(cases)} case folder{'s' * (len(cases) > 1)}, "
                f"for example {cases[0].relative_to(folder)}; choose one of them"
            )
        if not names:
            raise CaseError(f"{folder}: the folder is empty; expected the files of a case")
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    expected = ", ".join(file_name(found.name, layout, what) for what in missing)
    fewer = f", or use a network that needs only {', '.join(here)}" if here else ""
    raise CaseError(
        f"{path}: {', '.join(missing)} not found; expected {expected} (or .nii), "
        f"found {shown}; pass the file explicitly if it has another name{fewer}"
    )
