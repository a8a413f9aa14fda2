"""Splits: by patient, stratified by grade and site, reproducible, written and read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroxai.core.errors import TrainingError
from neuroxai.data.layouts import patient_id
from neuroxai.training.config.sources import CohortSource
from neuroxai.training.data.split import (
    SplitEntry,
    make_split,
    read_split,
    site_of,
    write_split,
)


def cohort(high: int, low: int, visits: int = 1) -> list[SplitEntry]:
    """Cases of two grades at three sites, with several visits per patient."""
    grades = ["HGG"] * high + ["LGG"] * low
    return [
        SplitEntry(f"P{n:03}-{visit}", f"P{n:03}", grade, "ABC"[n % 3])
        for n, grade in enumerate(grades)
        for visit in range(visits)
    ]


def patients(members: list[SplitEntry], part: str) -> set[str]:
    return {member.patient for member in members if member.part == part}


@settings(deadline=None, max_examples=60)
@given(
    high=st.integers(3, 60),
    low=st.integers(3, 30),
    visits=st.integers(1, 3),
    test=st.floats(0.05, 0.5),
    watched=st.floats(0.05, 0.5),
    seed=st.integers(0, 99),
)
def test_parts_share_no_patient_and_have_their_proportion_of_every_grade(
    high: int, low: int, visits: int, test: float, watched: float, seed: int
) -> None:
    source = CohortSource(folder="f", test_fraction=test, validation_fraction=watched)
    members = make_split(cohort(high, low, visits), source, seed)
    parts = [patients(members, part) for part in ("train", "validation", "test")]
    assert sum(map(len, parts)) == high + low
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    assert len(parts[2]) == max(1, round(test * (high + low)))
    grade = {member.patient: member.grade for member in members}
    held = Counter(grade[patient] for patient in parts[2])
    assert abs(held["LGG"] - len(parts[2]) * low / (high + low)) <= 1


def test_parts_have_their_proportion_of_every_site() -> None:
    members = make_split(cohort(60, 30), CohortSource(folder="f", test_fraction=0.2), 3)
    held = Counter((member.grade, member.site) for member in members if member.part == "test")
    assert held == {
        (grade, site): count for grade, count in (("HGG", 4), ("LGG", 2)) for site in "ABC"
    }


def test_every_patient_is_held_out_in_one_fold() -> None:
    all_held: list[str] = []
    for fold in range(5):
        source = CohortSource(folder="f", folds=5, fold=fold, validation_fraction=0.1)
        members = make_split(cohort(26, 11, visits=2), source, 7)
        held = patients(members, "test")
        assert held == {m.patient for m in members if m.fold == fold}
        assert 7 <= len(held) <= 8
        assert 2 <= sum(m.grade == "LGG" for m in members if m.part == "test") / 2 <= 3
        assert patients(members, "validation")
        all_held += held
    assert len(all_held) == len(set(all_held)) == 37


def test_a_split_depends_only_on_names_and_seed() -> None:
    source = CohortSource(folder="f", test_fraction=0.3)
    one = make_split(cohort(20, 9), source, 1)
    assert one == make_split(cohort(20, 9), source, 1)
    reversed_ = make_split(cohort(20, 9)[::-1], source, 1)
    assert patients(one, "test") == patients(reversed_, "test")
    assert patients(one, "test") != patients(make_split(cohort(20, 9), source, 2), "test")


def test_a_written_split_is_applied_unchanged(tmp_path: Path) -> None:
    first = make_split(cohort(9, 4, 2), CohortSource(folder="f", folds=3, fold=1), 5)
    path = write_split(first, tmp_path / "split.csv")
    assert sorted(read_split(path), key=lambda m: m.case) == sorted(first, key=lambda m: m.case)
    assert path.read_text().splitlines()[:2] == [
        "case,patient,grade,site,fold,part",
        f"P000-0,P000,HGG,A,{first[0].fold},{first[0].part}",
    ]
    again = make_split(cohort(9, 4, 2), CohortSource(folder="f", split=str(path)), 999)
    assert again == first
    with pytest.raises(TrainingError, match=r"does not contain P013-0 and 1 more"):
        make_split(cohort(9, 5, 2), CohortSource(folder="f", split=str(path)), 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case,part\nA,test\n", "line 2 lacks a column"),
        ("case,patient,grade,site,fold,part\nA,A,,,,exam\n", "has part 'exam'"),
        ("case,patient,grade,site,fold,part\nA,A,,,x,test\n", "fold 'x'"),
        ("case,patient,grade,site,fold,part\n", "contains no case"),
    ],
)
def test_an_invalid_split_file_raises_an_error(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "split.csv"
    path.write_text(text)
    with pytest.raises(TrainingError, match=words):
        read_split(path)


def test_more_folds_than_patients_raise_an_error() -> None:
    with pytest.raises(TrainingError, match="has 6 patients"):
        make_split(cohort(3, 3), CohortSource(folder="f", folds=7), 0)


@pytest.mark.parametrize(
    ("name", "patient", "site"),
    [
        ("BraTS19_CBICA_AAB_1", "BraTS19_CBICA_AAB_1", "CBICA"),
        ("BraTS19_TCIA13_642_1", "BraTS19_TCIA13_642_1", "TCIA13"),
        ("Brats18_2013_2_1", "Brats18_2013_2_1", "2013"),
        ("BraTS19_TMC_27374_1", "BraTS19_TMC_27374_1", "TMC"),
        ("BraTS20_Training_001", "BraTS20_Training_001", ""),
        ("BraTS-GLI-00012-001", "BraTS-GLI-00012", ""),
    ],
)
def test_patient_and_site_from_case_names(name: str, patient: str, site: str) -> None:
    assert (patient_id(name), site_of(name)) == (patient, site)
