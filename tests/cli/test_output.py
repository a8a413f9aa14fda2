"""What commands print: findings first, paths alone with --quiet, JSON with --json."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import cases
from cases import STUDY, tiny
from command_line import Run, here, said


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("output")
    cases.write_study(folder)
    torch.manual_seed(3)
    tiny(folder / "tiny", ("background", "NCR", "ED", "ET"), {"WT": ("NCR", "ED", "ET")})
    return folder


def explain(room: Path, out: Path, *more: str) -> Run:
    return here(
        "explain", room / STUDY, "--model", room / "tiny", "--method", "vanilla_gradient",
        "--method", "grad_cam", "--target", "WT", "-o", out, *more,
    )  # fmt: skip


def test_findings_come_first_and_match_the_written_map(room: Path, tmp_path: Path) -> None:
    run = explain(room, tmp_path / "out")
    lines = said(run).splitlines()
    assert lines[0].startswith("ALARM: the foreground is smaller than an adult's brain")
    assert lines[1] == "Network: tiny [bold]."
    assert lines[2].startswith(f"Prediction for {STUDY}: WT ")
    table = next(number for number, line in enumerate(lines) if "Method" in line)
    found = next(n for n, line in enumerate(lines) if line.startswith("WT, vanilla_gradient: "))
    assert found < table
    (path,) = tmp_path.glob("out/*_label-WT*_desc-vanillaGradient_statmap.nii.gz")
    values = np.asarray(nib.load(path).dataobj, dtype=np.float64)
    total = np.abs(values).sum()
    absolute = np.abs(values).sum(axis=(0, 1, 2)) / total
    signed = values.sum(axis=(0, 1, 2)) / total
    strongest = int(absolute.argmax())
    name = cases.MODALITIES[strongest]
    side = "for" if signed[strongest] >= 0 else "against"
    expected = (
        f"{name} carries {absolute[strongest]:.0%} of the map "
        f"(net {signed[strongest]:+.0%}, {side} WT)"
    )
    assert expected in lines[found]
    cell = f"{100 * absolute[strongest]:.0f} ({100 * signed[strongest]:+.0f})"
    assert any("vanilla_gradient" in line and cell in line for line in lines[table:])


def test_the_findings_name_the_dice_with_the_truth(room: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shown = said(here("predict", room / STUDY, "--model", room / "tiny", "-o", out))
    (labels,) = out.glob("*_dseg.nii.gz")
    predicted = np.asarray(nib.load(labels).dataobj) > 0
    truth = np.asarray(nib.load(room / STUDY / f"{STUDY}_seg.nii.gz").dataobj) > 0
    dice = 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum())
    assert f"WT {predicted.sum() / 1000:.1f} ml (Dice with the truth {dice:.3f})" in shown
    lesions = json.loads((out / "prediction.json").read_text("utf-8"))["lesions"]
    assert lesions["counts"]["WT"] > 0
    first = next(each for each in lesions["largest"] if each["region"] == "WT")
    assert "lesion:1" in shown
    assert f"{first['ml']:.2f}" in shown


COMMANDS = {
    "explain": ("--method", "vanilla_gradient", "--target", "WT"),
    "inspect": ("--target", "WT"),
    "predict": (),
    "shapley": ("--target", "WT"),
    "evaluate": (),
    "dissect": ("--no-tissues", "--causal", "0"),
}


@pytest.mark.parametrize(("command", "options"), COMMANDS.items())
def test_json_is_the_whole_output_and_quiet_prints_only_paths(
    room: Path, tmp_path: Path, command: str, options: tuple[str, ...]
) -> None:
    cohort = tmp_path / "cohort"
    cases.write_study(cohort)
    case = cohort if command in ("evaluate", "dissect") else cohort / STUDY
    whole = (command, case, "--model", room / "tiny", *options, "-o", tmp_path / "out")
    run = here(*whole, "--json")
    assert run.returncode == 0, run.stderr
    content = json.loads(run.stdout)
    assert {"command", "schema", "findings", "warnings", "folder", "files", "result"} == {*content}
    assert content["command"] == command
    assert content["schema"] == 1
    files = [Path(name) for name in content["files"]]
    assert files
    assert all(path.is_file() and path.parent == tmp_path / "out" for path in files)
    summary = {json.loads(path.read_text())["use"] for path in files if path.name in SUMMARIES}
    assert summary == {content["result"]["use"]}

    quiet = here(*whole, "--quiet")
    assert quiet.returncode == 0, quiet.stderr
    assert quiet.stderr == ""
    lines = [line for line in quiet.stdout.splitlines() if not line.startswith("Warning: ")]
    assert [Path(line).resolve() for line in lines] == files


SUMMARIES = {
    "modality_shapley.json",
    "summary.json", "flow.json", "prediction.json", "evaluation.json", "dissection.json",
}  # fmt: skip


def test_lists_are_printed_as_json() -> None:
    listed = json.loads(here("models", "list", "--json").stdout)["result"]["models"]
    shipped = next(each for each in listed if each["name"] == "deepseg-phantom")
    assert shipped["modalities"] == ["T1", "T1ce", "T2", "FLAIR"]
    methods = json.loads(here("methods", "--json").stdout)["result"]["methods"]
    known = {each["name"]: each for each in methods}
    assert known["smoothgrad"]["parameters"]["samples"] == "16"
    assert known["grad_cam"]["signed"] is False


def test_without_a_terminal_each_stage_is_one_line(room: Path, tmp_path: Path) -> None:
    run = explain(room, tmp_path / "out")
    lines = run.stderr.splitlines()
    assert len(lines) == len(set(lines))
    assert lines == ["shared passes ...", "WT: Vanilla gradient ...", "WT: Grad-CAM ..."]
    assert not re.search("[━%]", run.stderr)


def test_columns_of_path_methods_appear_with_a_path_method(room: Path, tmp_path: Path) -> None:
    steps = "--set integrated_gradients.steps=2", "--set integrated_gradients.rule=midpoint"
    shown = [
        said(
            here(
                "explain", room / STUDY, "--model", room / "tiny", "--method", method, *options,
                "-o", tmp_path / method,
            )
        )
        for method, options in (
            ("vanilla_gradient", ()),
            ("integrated_gradients", " ".join(steps).split()),
        )
    ]  # fmt: skip
    assert [re.search(r"Time +Gap", text) is not None for text in shown] == [False, True]
    assert ["completeness gap of path methods" in text for text in shown] == [False, True]
