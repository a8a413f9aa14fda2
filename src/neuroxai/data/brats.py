"""Reading and writing of case folders: BraTS 2018 to 2024 and NIfTI files named by modality."""

from __future__ import annotations

import csv
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError, OutputError, suggestion
from neuroxai.data.case import MODALITIES, Case, Grade, Layout, Source
from neuroxai.data.grid import reorient_to
from neuroxai.data.layouts import (
    LAYOUTS,
    decode_labels,
    detect_layout,
    encode_labels,
    file_name,
    get_layout,
    is_brats_name,
    numbered_name,
    parse_file_name,
)
from neuroxai.data.nifti import read_labels, read_nifti, write_nifti
from neuroxai.files.atomic import replaced_whole

__all__ = [
    "LAYOUTS",
    "encode_labels",
    "find_cases",
    "numbered_name",
    "read_case",
    "read_grade",
    "write_case",
    "write_name_mapping",
]

_MAPPING_BYTES = 2**23  # 8 MB; the lists of BraTS have a few kB

StrPath = str | os.PathLike[str]


def read_case(
    path: StrPath | None = None,
    *,
    modalities: Sequence[str] = MODALITIES,
    files: Mapping[str, StrPath] | None = None,
    layout: str | None = None,
) -> Case:
    """Read one study: the requested modalities, and the ground truth and grade if present.

    Volumes on the same physical grid in different orientations are reoriented to the first
    modality by flips and axis permutations, without interpolation.

    Parameters
    ----------
    path
        Folder of the case; None if ``files`` names every modality.
    modalities
        Required modalities; no others are read.
    files
        Modality (or ``truth``) to file; takes precedence over files found in the folder.
    layout
        A name in :data:`LAYOUTS`, or ``brats2024-ped``; detected from the file names by default.
        It defines the meaning of the label values.

    Raises
    ------
    CaseError
        If the folder is not a case, a modality is missing or ambiguous, a file cannot be read,
        grids differ by more than 0.001 mm, or label values are not in the layout.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("t1.nii.gz", "flair.nii.gz"):
    ...     image = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    ...     _ = write_nifti(folder / name, image, np.eye(4))
    >>> case = read_case(folder, modalities=["FLAIR"])
    >>> case.shape, case.layout.name, list(case.volumes)
    ((2, 3, 4), 'plain', ['FLAIR'])
    """
    required = tuple(dict.fromkeys(modalities))
    if not required:
        raise CaseError("no modality was requested; name at least one, for example FLAIR")
    requested_layout = get_layout(layout) if layout is not None else None
    given = _given_files(files or {}, required)
    folder = None if path is None else _folder(path)
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
    first = read_nifti(selected[required[0]])
    shape, affine = first.data.shape, first.affine
    volumes, sources = {required[0]: first.data}, {required[0]: Source(first.path, first.sha256)}
    warnings.extend(first.warnings)
    for what in required[1:]:
        volume = read_nifti(selected[what])
        pair = (first.path, volume.path)
        reoriented = reorient_to(shape, affine, volume.data, volume.affine, pair)
        # torch cannot use negative strides; arrays that were not flipped are not copied.
        volumes[what] = np.asfortranarray(reoriented)
        sources[what] = Source(volume.path, volume.sha256)
        warnings.extend(volume.warnings)
    warnings.extend(_duplicates(sources))
    truth = None
    if "truth" in selected and requested_layout is None and name.lower().startswith("brats-ped-"):
        raise CaseError(
            f"{selected['truth']}: the label values of BraTS-PED depend on the year; name the "
            "layout, brats2023 (ET is 3) or brats2024-ped (ET is 1)"
        )
    if "truth" in selected:
        labels = read_labels(selected["truth"])
        pair = (first.path, labels.path)
        reoriented = reorient_to(shape, affine, labels.data, labels.affine, pair)
        truth = decode_labels(reoriented, case_layout, labels.path)
        sources["truth"] = Source(labels.path, labels.sha256)
        warnings.extend(labels.warnings)
    grade = None if folder is None else _grade(folder, name, warnings)
    return Case(name, volumes, affine, case_layout, truth, grade, sources, tuple(warnings))


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
    return sorted(_cases_under(_folder(folder, "a folder of cases"), levels=4))


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


def read_grade(folder: StrPath) -> Grade | None:
    """Return the grade of a case from its parent folder or a ``name_mapping.csv``.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp(), "LGG", "Brats18_A_1")
    >>> place.mkdir(parents=True)
    >>> read_grade(place)
    'LGG'
    """
    place = Path(folder)
    return _grade(place, place.name, [])


def write_case(
    case: Case, folder: StrPath, layout: str | Layout | None = None, *, integer: bool = False
) -> Path:
    """Write a case as a folder in ``folder``, with the file names and label values of a layout.

    Graded cases of BraTS 2018 and 2019 are written into ``HGG`` or ``LGG``, as in those releases.

    Parameters
    ----------
    layout
        Layout of the files; that of the case by default.
    integer
        Round the volumes to int16, the usual type of scanners, instead of storing float32.

    Returns
    -------
    Path
        Folder of the case.

    Raises
    ------
    CaseError
        If a class in the truth has no label value in the layout.
    OutputError
        If a volume does not fit into int16 or a file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> image = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    >>> case = Case("BraTS2021_00001", {"T1": image}, np.eye(4), LAYOUTS["brats2021"])
    >>> written = write_case(case, tempfile.mkdtemp())
    >>> [file.name for file in written.iterdir()]
    ['BraTS2021_00001_t1.nii.gz']
    """
    used = case.layout if layout is None else get_layout(layout)
    arrays: dict[str, NDArray[Any]] = dict(case.volumes)
    for modality, volume in case.volumes.items() if integer else ():
        rounded = np.rint(volume)
        if rounded.min() < -(2**15) or rounded.max() >= 2**15:
            raise OutputError(
                f"{case.name}: {modality} exceeds the range of int16; write float32 instead"
            )
        arrays[modality] = rounded.astype(np.int16)
    if case.truth is not None:
        arrays["truth"] = encode_labels(case.truth, used)
    place = Path(folder)
    if case.grade is not None and used.name in ("brats2018", "brats2019"):
        place /= case.grade
    place /= case.name
    for what, array in arrays.items():
        write_nifti(place / file_name(case.name, used, what), array, case.affine)
    return place


def write_name_mapping(
    folder: StrPath,
    cases: Iterable[Case] | Mapping[str, Grade | None],
    layout: str = "brats2020",
) -> Path:
    """Write ``name_mapping.csv``, the table of grades of BraTS 2018 to 2020.

    Parameters
    ----------
    cases
        Cases, or case name to grade; cases without a grade are omitted.

    Raises
    ------
    OutputError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> print(write_name_mapping(tempfile.mkdtemp(), {"BraTS20_Training_001": "LGG"}).read_text())
    Grade,BraTS_2020_subject_ID
    LGG,BraTS20_Training_001
    <BLANKLINE>
    """
    year = get_layout(layout).name.removeprefix("brats")
    column = f"BraTS_{year}_subject_ID" if year.isdigit() else "BraTS_subject_ID"
    grades = cases if isinstance(cases, Mapping) else {case.name: case.grade for case in cases}
    path = Path(folder) / "name_mapping.csv"
    with (
        replaced_whole(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["Grade", column])
        rows.writerows([grade, name] for name, grade in sorted(grades.items()) if grade)
    return path


def _folder(path: StrPath, expected: str = "the folder of a case") -> Path:
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


def _duplicates(sources: Mapping[str, Source]) -> Iterable[str]:
    """Yield a warning for each group of modalities read from identical files."""
    by_bytes: dict[str, list[str]] = {}
    for what, source in sources.items():
        by_bytes.setdefault(source.sha256, []).append(what)
    for names in by_bytes.values():
        if len(names) > 1:
            yield (
                f"{sources[names[0]].path}: {' and '.join(names)} were read from identical files; "
                "check the modality of each scan"
            )


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


def _grade(folder: Path, name: str, warnings: list[str]) -> Grade | None:
    place = Path(os.path.abspath(folder))  # noqa: PTH100 (lexical: a linked case keeps its parent)
    by_folder = place.parent.name.upper()
    listed: set[str] = set()
    for file in itertools.chain(
        *(sorted(above.glob("name_mapping*.csv")) for above in list(place.parents)[:2])
    ):
        try:
            if file.is_file() and file.stat().st_size <= _MAPPING_BYTES:
                listed |= _grades_in(file, {name, place.name})
        except (OSError, ValueError, csv.Error) as error:
            warnings.append(f"{file}: cannot be read as a table of grades ({error})")
    grades = listed | ({by_folder} & {"HGG", "LGG"})
    if len(grades) > 1:
        warnings.append(f"{folder}: conflicting grades: {' and '.join(sorted(grades))}")
        return cast("Grade", by_folder) if by_folder in ("HGG", "LGG") else None
    return cast("Grade", grades.pop()) if grades else None


def _grades_in(file: Path, names: set[str]) -> set[str]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        found = set()
        for row in csv.DictReader(stream):
            listed = {
                value
                for column, value in row.items()
                if column and re.fullmatch(r"brats.*subject_?id", column.strip(), re.IGNORECASE)
            }
            grade = str(row.get("Grade")).strip().upper()
            if grade in ("HGG", "LGG") and listed & names:
                found.add(grade)
    return found
