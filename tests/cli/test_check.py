"""``neuroxai check``: what it prints, and how it ends."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from command_line import here
from neuroxai.data.brats import write_case
from neuroxai.data.phantom import make_phantom


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("check")
    case = make_phantom(7, spacing=3.0, grade="HGG").case
    write_case(replace(case, name="right"), folder)
    swapped = {**case.volumes, "T2": case.volumes["FLAIR"], "FLAIR": case.volumes["T2"]}
    write_case(replace(case, name="wrong", volumes=swapped), folder)
    write_case(replace(case, name="few", volumes={"T1": case.volumes["T1"]}, truth=None), folder)
    return folder


def test_a_right_scan_ends_with_zero_and_lists_all_checks(room: Path) -> None:
    run = here("check", room / "right")
    assert run.returncode == 0
    assert "ALARM" not in run.stdout
    assert run.stdout.count("passed") == 9
    assert here("check", room / "right", "--quiet", "--strict").stdout == ""


def test_an_alarm_stands_first_and_sets_the_exit_code(room: Path) -> None:
    run = here("check", room / "wrong")
    assert run.returncode == 3
    assert run.stdout.startswith("ALARM: T2 and FLAIR: CSF is bright on FLAIR and not on T2")
    quiet = here("check", room / "wrong", "--quiet")
    assert quiet.returncode == 3
    assert quiet.stdout.splitlines() == run.stdout.splitlines()[:1]


def test_json_has_number_threshold_and_remedy(room: Path) -> None:
    run = here("check", room / "wrong", "--json")
    content = json.loads(run.stdout)
    (alarm,) = content["result"]["alarms"]
    assert run.returncode == 3
    assert content["command"] == "check"
    assert alarm["sequences"] == ["T2", "FLAIR"]
    assert np.isfinite([alarm["value"], alarm["threshold"]]).all()
    assert alarm["remedy"]


def test_a_case_with_one_sequence_says_what_is_missing(room: Path) -> None:
    run = here("check", room / "few", "--json")
    reasons = json.loads(run.stdout)["result"]["not_checked"]
    assert run.returncode == 0
    assert reasons["contrast"] == "needs T1, T1ce, T2, FLAIR; the case has no T1ce, T2, FLAIR"


def test_other_sequences_are_checked_by_the_checks_that_suit_them(room: Path) -> None:
    file = next((room / "few").glob("*_t1.nii.gz"))
    run = here("check", "--file", f"ADC={file}", "--json")
    result = json.loads(run.stdout)["result"]
    assert "numbers" in result["passed"]
    assert run.returncode == 0


def test_a_folder_without_a_case_is_an_error_of_one_sentence(tmp_path: Path) -> None:
    run = here("check", tmp_path)
    assert run.returncode == 1
    assert "the folder is empty" in run.stderr
    assert here("check").returncode == 1
