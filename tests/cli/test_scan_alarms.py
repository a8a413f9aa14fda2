"""Alarms of a scan in the commands that read it: first in every output, and --strict refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import cases
from cases import STUDY, tiny
from command_line import here

SMALL = "the foreground is smaller than an adult's brain"
"""The alarm of the study, an ellipsoid of 15 ml."""


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alarms")
    cases.write_study(folder / "cohort")
    torch.manual_seed(3)
    tiny(folder / "tiny", ("background", "NCR", "ED", "ET"), {"WT": ("NCR", "ED", "ET")})
    return folder


COMMANDS = {
    "explain": ["--method", "vanilla_gradient", "--target", "WT"],
    "predict": [],
    "shapley": ["--target", "WT"],
    "inspect": ["--target", "WT"],
    "evaluate": [],
    "dissect": ["--no-tissues", "--causal", "0"],
}
SUMMARIES = {"explain": "summary", "predict": "prediction", "inspect": "flow",
             "shapley": "modality_shapley",
             "evaluate": "evaluation", "dissect": "dissection"}  # fmt: skip


@pytest.mark.parametrize("command", list(COMMANDS))
def test_the_alarm_is_the_first_finding_and_warning_and_in_the_summary(
    room: Path, tmp_path: Path, command: str
) -> None:
    place = room / "cohort" / (STUDY if command not in ("evaluate", "dissect") else "")
    run = here(
        command, place, "--model", room / "tiny", *COMMANDS[command], "-o", tmp_path / "out",
        "--json",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    content = json.loads(run.stdout)
    assert content["findings"][0].startswith("ALARM: ")
    assert SMALL in content["findings"][0]
    assert SMALL in content["warnings"][0]
    found = content["result"]["quality"]
    alarms = (found if "alarms" in found else found[STUDY])["alarms"]
    assert [each["check"] for each in alarms] == ["volume"]
    assert (tmp_path / "out" / f"{SUMMARIES[command]}.json").is_file()
    for path in tmp_path.glob("out/*_statmap.json"):
        described = json.loads(path.read_text("utf-8"))
        assert described["quality"]["alarms"][0]["problem"] == SMALL


@pytest.mark.parametrize("command", list(COMMANDS))
def test_strict_refuses_and_writes_nothing(room: Path, tmp_path: Path, command: str) -> None:
    place = room / "cohort" / (STUDY if command not in ("evaluate", "dissect") else "")
    run = here(
        command, place, "--model", room / "tiny", *COMMANDS[command], "-o", tmp_path / "out",
        "--strict",
    )  # fmt: skip
    assert run.returncode == 1
    assert "refused because of --strict" in run.stderr
    assert SMALL in run.stderr
    assert not list(tmp_path.glob("out/*"))
