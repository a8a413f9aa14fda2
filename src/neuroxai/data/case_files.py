"""Files of a case, recognized by their names; importable without NumPy or torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuroxai.core.errors import CaseError, suggestion
from neuroxai.core.vocabulary import MODALITIES
from neuroxai.data.layouts import (
    Layout,
    detect_layout,
    file_name,
    get_layout,
    is_brats_name,
    parse_file_name,
)

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
) -> CaseFiles:
    """Find the files of a case; none of them is opened.

    Parameters
    ----------
    path, modalities, files, layout
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
    folder = None if path is None else check_folder(path)
    selected = dict(given)
    if folder is not None:
        for what, found in _recognized_files(folder).items():
            if what in given or what not in (*required, "truth"):
                continue
            if len(found) > 1:
                names = " and ".join(file.name for file in found)
                raise CaseError(f"{folder}: several files for {what}: {names}; keep one")
            selected[what] = found[0]
    found_files = {what: file for what, file in selected.items() if what not in given}
    name, detected, warnings = _identify(folder, found_files or selected)
    case_layout = requested_layout or detected
    _check_complete(folder, required, selected, case_layout, name)
    if "truth" in selected and requested_layout is None and name.lower().startswith("brats-ped-"):
        raise CaseError(
            f"{selected['truth']}: the label values of BraTS-PED depend on the year; name the "
            "layout, brats2023 (ET is 3) or brats2024-ped (ET is 1)"
        )
    ordered = {what: selected[what] for what in (*required, "truth") if what in selected}
    return CaseFiles(name, folder, ordered, case_layout, tuple(warnings))


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
        names |= dict.fromkeys(_recognized_files(check_folder(path)))
    names.pop("truth", None)
    if not names and path is not None:
        _check_complete(Path(path), MODALITIES, {}, get_layout("plain"), "case")
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


def find_cases(folder: StrPath) -> list[Path]:
    """Return the case folders in a cohort folder, sorted; BIDS subject and session folders too.

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
    return sorted(_cases_under(check_folder(folder, "a folder of cases"), levels=4))


def case_name(folder: StrPath) -> str:
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
    place = Path(folder)
    files = {what: found[0] for what, found in _recognized_files(place).items()}
    return _identify(place, files)[0]


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


def _recognized_files(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        if (match := parse_file_name(entry.name)) is not None and not entry.is_dir():
            found.setdefault(match[1], []).append(entry)
    return found


def _cases_under(folder: Path, levels: int) -> Iterable[Path]:
    try:
        found = _recognized_files(folder)
        subfolders = [e for e in folder.iterdir() if not e.name.startswith(".") and e.is_dir()]
    except OSError:  # skip folders without read permission
        return
    if any(what != "truth" for what in found):
        yield folder
    elif levels > 1:
        for entry in subfolders:
            yield from _cases_under(entry, levels - 1)


def _given_files(files: Mapping[str, StrPath], required: Sequence[str]) -> dict[str, Path]:
    given: dict[str, Path] = {}
    for key, file in files.items():
        match = parse_file_name(f"{key}.nii")
        what = key if key in required else match[1] if match is not None and not match[0] else None
        if what is None:
            known = suggestion(key, (*MODALITIES, "truth"))
            raise CaseError(f"{file}: '{key}' is not a modality; {known}")
        if what in given:
            raise CaseError(f"{file}: {what} is given twice; the other file is {given[what]}")
        given[what] = Path(file)
    return given


def _identify(folder: Path | None, files: Mapping[str, Path]) -> tuple[str, Layout, list[str]]:
    """Return the case name, the layout and warnings, from the file names."""
    warnings: list[str] = []
    prefixes = {(parse_file_name(file.name) or ("", ""))[0] for file in files.values()}
    where = folder if folder is not None else next(iter(files.values()), Path("case")).parent
    if len(prefixes) > 1:
        shown = ", ".join(sorted(prefix or "(no name)" for prefix in prefixes))
        if folder is not None and any(map(is_brats_name, prefixes)):
            raise CaseError(
                f"{where}: contains files of different cases: {shown}; expected a single case"
            )
        if len({prefix.split("_")[0] for prefix in prefixes}) > 1:
            warnings.append(f"{where}: the file names belong to different cases: {shown}")
    prefix = prefixes.pop() if len(prefixes) == 1 else ""
    name = prefix or Path(os.path.abspath(where)).name or "case"  # noqa: PTH100 (lexical: keep links)
    t1_files = " ".join(files[what].name for what in ("T1", "T1ce") if what in files)
    return name, detect_layout(prefix, t1_files), warnings


def _check_complete(
    folder: Path | None,
    required: Sequence[str],
    files: Mapping[str, Path],
    layout: Layout,
    name: str,
) -> None:
    missing = [what for what in required if what not in files]
    if not missing:
        return
    if folder is None:
        got = ", ".join(files) or "none"
        raise CaseError(f"no file was given for {', '.join(missing)}; got {got}")
    found = sorted(entry.name for entry in folder.iterdir())
    if not files:
        cases = sorted(_cases_under(folder, levels=3))
        if cases:
            raise CaseError(
                f"{folder}: contains {len(cases)} case folder{'s' * (len(cases) > 1)}, "
                f"for example {cases[0].relative_to(folder)}; choose one of them"
            )
        if not found:
            raise CaseError(f"{folder}: the folder is empty; expected the files of a case")
    shown = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")
    expected = ", ".join(file_name(name, layout, what) for what in missing)
    raise CaseError(
        f"{folder}: {', '.join(missing)} not found; expected {expected} (or .nii), "
        f"found {shown}; pass the file explicitly if it has another name"
    )
