"""Split of a cohort into training, validation and test cases, by patient."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np

from neuroxai.core.errors import TrainingError, suggestion
from neuroxai.files.atomic import write_table
from neuroxai.training.config.sources import CohortSource

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
_COLUMNS = ("case", "patient", "grade", "site", "fold", "part")


@dataclass(frozen=True)
class SplitEntry:
    """One case of a cohort and the part of the split it belongs to.

    Attributes
    ----------
    case, patient
        Folder name of the case, and its patient.
    grade, site
        Tumor grade and acquisition site; empty if unknown.
    fold
        Fold of a cross-validation in which the case is held out; −1 without cross-validation.
    part
        ``train``, ``validation`` or ``test``.
    """

    case: str
    patient: str
    grade: str = ""
    site: str = ""
    fold: int = -1
    part: Part = "train"


def site_of(name: str) -> str:
    """Acquisition site in a case name of BraTS 2017 to 2019; empty for other names.

    Examples
    --------
    >>> site_of("BraTS19_TCIA01_131_1"), site_of("Brats18_2013_2_1"), site_of("BraTS2021_00001")
    ('TCIA01', '2013', '')
    """
    found = re.match(r"brats1[789]_([a-z]+\d*|2013)_", name, re.IGNORECASE)
    return found[1].upper() if found else ""


def make_split(entries: Sequence[SplitEntry], source: CohortSource, seed: int) -> list[SplitEntry]:
    """Assign each case to a part of the split, as a function of names, ``source`` and ``seed``.

    All cases of a patient belong to the same part. Patients are sorted by grade and site and
    shuffled within; every n-th is held out. Each part therefore has its proportion of every grade
    and site, to within one patient.

    Raises
    ------
    TrainingError
        If a patient or fold does not exist, two cases have the same name, or a split file does not
        contain every case.
    """
    _check_unique(entries, source)
    if source.split is not None:
        return _from_file(entries, Path(source.split))
    order = _stratified_order(entries, np.random.default_rng(seed))
    if source.test:
        for name in source.test:
            if name not in order:
                raise TrainingError(
                    f"data.cohort.test: no patient {name!r} in {source.folder}; "
                    f"{suggestion(name, order)}"
                )
        held_out = set(source.test)
        folds: Mapping[str, int] = {}
    elif source.folds:
        if not source.folds <= len(order):
            raise TrainingError(
                f"data.cohort.folds is {source.folds}, but {source.folder} has {len(order)} "
                "patients; use fewer folds"
            )
        folds = {patient: index % source.folds for index, patient in enumerate(order)}
        held_out = {patient for patient, fold in folds.items() if fold == source.fold}
    else:
        held_out, folds = _every_nth(order, source.test_fraction), {}
    rest = [patient for patient in order if patient not in held_out]
    validation = _every_nth(rest, source.validation_fraction)

    def part(patient: str) -> Part:
        return "test" if patient in held_out else "validation" if patient in validation else "train"

    return [
        replace(entry, fold=folds.get(entry.patient, -1), part=part(entry.patient))
        for entry in entries
    ]


def _check_unique(entries: Sequence[SplitEntry], source: CohortSource) -> None:
    seen: set[str] = set()
    for entry in entries:
        if entry.case in seen:
            raise TrainingError(
                f"{source.folder}: two cases are named {entry.case}; rename one of the folders, a "
                "split needs unique names"
            )
        seen.add(entry.case)


def write_split(entries: Sequence[SplitEntry], path: Path) -> Path:
    """Write a split as CSV, one row per case."""
    ordered = sorted(entries, key=lambda entry: entry.case)
    rows = [
        (e.case, e.patient, e.grade, e.site, "" if e.fold < 0 else e.fold, e.part) for e in ordered
    ]
    return write_table(path, _COLUMNS, rows)


def read_split(path: Path) -> list[SplitEntry]:
    """Read the result of :func:`write_split`.

    Raises
    ------
    TrainingError
        If the file is not a split.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{path}: not a readable split ({error}); expected CSV") from error
    entries = []
    for number, row in enumerate(rows, start=2):
        if any(row.get(column) is None for column in _COLUMNS):
            raise TrainingError(
                f"{path}: line {number} lacks a column, expected {', '.join(_COLUMNS)}"
            )
        if row["part"] not in PARTS or not re.fullmatch(r"\d{0,3}", row["fold"]):
            raise TrainingError(
                f"{path}: line {number} has part {row['part']!r} and fold {row['fold']!r}; "
                f"expected one of {', '.join(PARTS)}, and a number or nothing"
            )
        entries.append(
            SplitEntry(
                row["case"],
                row["patient"],
                row["grade"],
                row["site"],
                int(row["fold"] or -1),
                cast("Part", row["part"]),
            )
        )
    if not entries:
        raise TrainingError(f"{path}: contains no case; expected one row per case")
    return entries


def _from_file(entries: Sequence[SplitEntry], path: Path) -> list[SplitEntry]:
    """Assign every case to the part in a split file."""
    written = {entry.case: entry for entry in read_split(path)}
    missing = [entry.case for entry in entries if entry.case not in written]
    if missing:
        others = f" and {len(missing) - 1} more cases" if len(missing) > 1 else ""
        raise TrainingError(
            f"{path}: does not contain {missing[0]}{others}; use the split of this cohort, or none"
        )
    return [
        replace(entry, fold=written[entry.case].fold, part=written[entry.case].part)
        for entry in entries
    ]


def _stratified_order(entries: Sequence[SplitEntry], rng: np.random.Generator) -> list[str]:
    """Patients sorted by grade and site, in random order within each stratum."""
    stratum: dict[str, tuple[str, str]] = {}
    for entry in sorted(entries, key=lambda entry: entry.case):
        stratum.setdefault(entry.patient, (entry.grade, entry.site))
    shuffled: list[str] = rng.permutation(sorted(stratum)).tolist()
    return sorted(shuffled, key=lambda patient: stratum[patient])


def _every_nth(order: Sequence[str], fraction: float) -> set[str]:
    """Select a fraction of the patients evenly over their order; at least one unless it is 0."""
    if not fraction or not order:
        return set()
    count = min(max(1, round(fraction * len(order))), len(order))
    places = np.floor((np.arange(count) + 0.5) * len(order) / count).astype(int)
    return {order[place] for place in places}
