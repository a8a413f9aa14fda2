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

from neuroxai.core.errors import OutputError
from neuroxai.data.case import MODALITIES, Case, Grade, Source
from neuroxai.data.case_files import StrPath, case_name, locate_case, reference_modality
from neuroxai.data.case_grid import CaseGrid
from neuroxai.data.label_values import decode_labels, encode_labels, label_warnings
from neuroxai.data.layouts import Layout, file_name, get_layout
from neuroxai.data.nifti import read_labels, read_nifti, split_volume, write_nifti
from neuroxai.files.atomic import atomic_path

_MAPPING_BYTES = 2**23  # 8 MB; the lists of BraTS have a few kB


def read_case(
    path: StrPath | None = None,
    *,
    modalities: Sequence[str] = MODALITIES,
    files: Mapping[str, StrPath] | None = None,
    layout: str | None = None,
    channels: Sequence[str] = (),
    resample_to: str | None = None,
) -> Case:
    """Read one study: the requested modalities, and the ground truth and grade if present.

    Volumes on the same physical grid in different orientations are reoriented to the first
    modality by flips and axis permutations, without interpolation.

    Parameters
    ----------
    path
        Folder of the case, or one of its images where a folder has several cases; None if
        ``files`` names every modality.
    modalities
        Required modalities; no others are read.
    files
        Modality (or ``truth``) to file; takes precedence over files found in the folder.
    layout
        A name in :data:`~neuroxai.data.layouts.LAYOUTS`, ``brats2024-ped``, ``brats2024-men-rt`` or
        ``decathlon``; detected from the file names by default. It defines the meaning of the label
        values.
    channels
        Modalities of the network in its order, for files that are numbered as in nnU-Net
        (``CASE_0000.nii.gz``); ``modalities`` by default.
    resample_to
        One of ``modalities``, whose grid becomes that of the case: files on other grids are
        resampled to it through their headers, images linearly and labels with the nearest neighbor.
        This is not a registration. By default, files on other grids are refused.

    Raises
    ------
    CaseError
        If the folder is not a case, a modality is missing or ambiguous, a file cannot be read,
        voxel centers differ by 5 % of a voxel or more, or label values are not in the layout.
    MissingExtraError
        If a file must be resampled and SimpleITK is not installed.

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
    found = locate_case(path, modalities=modalities, files=files, layout=layout, channels=channels)
    reference = reference_modality(found, resample_to)
    first = read_nifti(found.files[reference])
    grid = CaseGrid(first.data.shape, first.affine, first.path, resample_to and reference)
    volumes: dict[str, NDArray[np.float32]] = {}
    sources: dict[str, Source] = {}
    warnings = [*found.warnings]
    for what, file in found.files.items():
        if what == "truth":
            continue
        volume = first if what == reference else read_nifti(file)
        placed = grid.place(volume)
        volumes[what] = placed.data
        sources[what] = Source(volume.path, volume.sha256, placed.note)
        warnings.extend((*volume.warnings, *([placed.note] if placed.note else [])))
    warnings.extend(_duplicates(sources))
    truth = None
    if "truth" in found.files:
        labels = read_labels(found.files["truth"])
        placed = grid.place(labels)
        truth = decode_labels(placed.data, found.layout, labels.path)
        sources["truth"] = Source(labels.path, labels.sha256, placed.note)
        warnings.extend((*labels.warnings, *([placed.note] if placed.note else [])))
        warnings.extend(label_warnings(placed.data, found.layout, labels.path))
    grade = None if found.folder is None else _grade(found.folder, found.name, warnings)
    return Case(
        found.name, volumes, grid.affine, found.layout, truth, grade, sources, tuple(warnings)
    )  # fmt: skip


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
    name = case_name(place)
    return _grade(place if place.is_dir() else place.parent, name, [])


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
    >>> case = Case("BraTS2021_00001", {"T1": image}, np.eye(4), get_layout("brats2021"))
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
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["Grade", column])
        rows.writerows([grade, name] for name, grade in sorted(grades.items()) if grade)
    return path


def _duplicates(sources: Mapping[str, Source]) -> Iterable[str]:
    """Yield a warning for each group of modalities read from identical files."""
    by_bytes: dict[tuple[str, int | None], list[str]] = {}
    for what, source in sources.items():
        content = (source.sha256, split_volume(source.path)[1])
        by_bytes.setdefault(content, []).append(what)
    for names in by_bytes.values():
        if len(names) > 1:
            yield (
                f"{sources[names[0]].path}: {' and '.join(names)} were read from identical files; "
                "check the modality of each scan"
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
