"""Who is trained on and who is held out: by patient, evenly over grades and sites, on file."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np

from neuroxai.core.errors import TrainingError, suggestion
from neuroxai.files.folder import write_table
from neuroxai.training.config.sources import CohortSource

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
_COLUMNS = ("case", "patient", "grade", "site", "fold", "part")


@dataclass(frozen=True)
class Member:
    """One case of a cohort and the part it plays.

    Attributes
    ----------
    case, patient
        The case's folder name, and whom it belongs to.
    grade, site
        Empty where they are not known.
    fold
        In a cross validation the fold in which the case is held out; −1 without one.
    """

    case: str
    patient: str
    grade: str = ""
    site: str = ""
    fold: int = -1
    part: Part = "train"


def site_of(name: str) -> str:
    """Return the site that a case's name tells, as those of BraTS 2018 and 2019 do; else nothing.

    Examples
    --------
    >>> site_of("BraTS19_TCIA01_131_1"), site_of("Brats18_2013_2_1"), site_of("BraTS2021_00001")
    ('TCIA01', '2013', '')
    """
    found = re.match(r"brats1[789]_([a-z]+\d*|2013)_", name, re.IGNORECASE)
    return found[1].upper() if found else ""


def draw_split(members: Sequence[Member], source: CohortSource, seed: int) -> list[Member]:
    """Return the members with their parts, a function of names, ``source`` and ``seed`` alone.

    All cases of a patient play the same part. Patients are put in order by grade and site, within
    those at random, and every n-th is held out: so each part has its share of each grade and site,
    to within one patient.

    Raises
    ------
    TrainingError
        If a named patient is not there, a file does not name every case, or a fold does not exist.
    """
    _each_once(members, source)
    if source.split is not None:
        return _as_written(members, Path(source.split))
    order = _in_order(members, np.random.default_rng(seed))
    if source.test:
        for name in source.test:
            if name not in order:
                raise TrainingError(
                    f"data.cohort.test: no patient {name!r} in {source.folder}; "
                    f"{suggestion(name, order)}"
                )
        held = set(source.test)
        folds: Mapping[str, int] = {}
    elif source.folds:
        if not source.folds <= len(order):
            raise TrainingError(
                f"data.cohort.folds is {source.folds}, but {source.folder} holds {len(order)} "
                "patients; set fewer folds"
            )
        folds = {patient: index % source.folds for index, patient in enumerate(order)}
        held = {patient for patient, fold in folds.items() if fold == source.fold}
    else:
        held, folds = _every_nth(order, source.test_fraction), {}
    rest = [patient for patient in order if patient not in held]
    watched = _every_nth(rest, source.validation_fraction)

    def part(patient: str) -> Part:
        return "test" if patient in held else "validation" if patient in watched else "train"

    return [
        replace(member, fold=folds.get(member.patient, -1), part=part(member.patient))
        for member in members
    ]


def _each_once(members: Sequence[Member], source: CohortSource) -> None:
    seen: set[str] = set()
    for member in members:
        if member.case in seen:
            raise TrainingError(
                f"{source.folder}: holds two cases of the name {member.case}, and a split goes by "
                "name: rename the folders so that each has its own"
            )
        seen.add(member.case)


def write_split(members: Sequence[Member], path: Path) -> Path:
    """Write who plays which part, a line a case."""
    ordered = sorted(members, key=lambda member: member.case)
    rows = [
        (m.case, m.patient, m.grade, m.site, "" if m.fold < 0 else m.fold, m.part) for m in ordered
    ]
    return write_table(path, _COLUMNS, rows)


def read_split(path: Path) -> list[Member]:
    """Read what :func:`write_split` wrote.

    Raises
    ------
    TrainingError
        If the file is no such table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{path}: cannot be read as a split ({error})") from error
    members = []
    for number, row in enumerate(rows, start=2):
        if any(row.get(column) is None for column in _COLUMNS):
            raise TrainingError(
                f"{path}: line {number} is not of a split, expected {', '.join(_COLUMNS)}"
            )
        if row["part"] not in PARTS or not re.fullmatch(r"\d{0,3}", row["fold"]):
            raise TrainingError(
                f"{path}: line {number} has the part {row['part']!r} and the fold {row['fold']!r}; "
                f"expected one of {', '.join(PARTS)}, and a number or nothing"
            )
        members.append(
            Member(
                row["case"],
                row["patient"],
                row["grade"],
                row["site"],
                int(row["fold"] or -1),
                cast("Part", row["part"]),
            )
        )
    if not members:
        raise TrainingError(f"{path}: holds no case")
    return members


def _as_written(members: Sequence[Member], path: Path) -> list[Member]:
    """Give every member the part that a file names."""
    written = {member.case: member for member in read_split(path)}
    missing = [member.case for member in members if member.case not in written]
    if missing:
        raise TrainingError(
            f"{path}: does not name {missing[0]}"
            + (f" and {len(missing) - 1} more cases" if len(missing) > 1 else "")
            + "; give the split of this cohort, or none"
        )
    return [
        replace(member, fold=written[member.case].fold, part=written[member.case].part)
        for member in members
    ]


def _in_order(members: Sequence[Member], generator: np.random.Generator) -> list[str]:
    """Return the patients by grade and site, those alike in random order."""
    kind: dict[str, tuple[str, str]] = {}
    for member in sorted(members, key=lambda member: member.case):
        kind.setdefault(member.patient, (member.grade, member.site))
    shuffled: list[str] = generator.permutation(sorted(kind)).tolist()
    return sorted(shuffled, key=lambda patient: kind[patient])


def _every_nth(order: Sequence[str], fraction: float) -> set[str]:
    """Return a share of the patients, evenly over their order; at least one unless it is 0."""
    if not fraction or not order:
        return set()
    count = min(max(1, round(fraction * len(order))), len(order))
    places = np.floor((np.arange(count) + 0.5) * len(order) / count).astype(int)
    return {order[place] for place in places}
