"""Result folders of commands: checked before the run, protected, and removed on failure."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import cases
from cases import STUDY, tiny
from command_line import Run, here, refusal, said
from neuroxai.files.folder import Results
from neuroxai.files.names import bids_stem
from neuroxai.models import loading
from neuroxai.patient.prediction import read_output
from neuroxai.workflows import answer, dissect, evaluate, session
from neuroxai.workflows.control import Control

NOTE = "left and right must lie as in its training data"


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    cases.write_study(folder)
    cases.write_study(folder, "BraTS2021_00008")
    tiny(folder / "tiny", ("background", "NCR", "ED", "ET"), {"WT": ("NCR", "ED", "ET")})
    return folder


def never(*_: Any, **__: Any) -> None:
    pytest.fail("the run was started")


SUMMARY = {"explain": "summary.json", "inspect": "flow.json", "predict": "prediction.json",
           "shapley": "modality_shapley.json"}  # fmt: skip


@pytest.mark.parametrize(
    "command", ["explain", "inspect", "predict", "shapley", "evaluate", "dissect"]
)
def test_a_file_in_place_of_the_folder_is_refused_before_the_run(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (tmp_path / "afile").write_text("mine")
    for module, name in ((session, "open"), (evaluate, "evaluate"), (dissect, "dissect")):
        monkeypatch.setattr(module, name, never)
    case = room if command in ("evaluate", "dissect") else room / STUDY
    run = here(command, case, "--model", room / "tiny", "-o", tmp_path / "afile")
    refusal(run, "afile: is a file, expected a folder for results")
    assert (tmp_path / "afile").read_text() == "mine"


def test_a_prediction_is_written_completely_or_not_at_all(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import neuroxai.files.atomic

    def full(path: Path, content: object) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(neuroxai.files.atomic, "write_json", full)
    out = tmp_path / "out"
    run = here("predict", room / STUDY, "--model", room / "tiny", "-o", out)
    assert run.returncode != 0
    assert not out.exists()


@pytest.mark.parametrize(("command", "file"), SUMMARY.items())
def test_results_of_another_case_are_not_overwritten(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, file: str
) -> None:
    (tmp_path / file).write_text('{"case": "BraTS2021_00008"}')
    monkeypatch.setattr(session, "open", never)
    run = here(command, room / STUDY, "--model", room / "tiny", "-o", tmp_path)
    refusal(run, STUDY, "BraTS2021_00008", file, "--out")
    assert [path.name for path in tmp_path.iterdir()] == [file]
    assert (tmp_path / file).read_text() == '{"case": "BraTS2021_00008"}'


def test_results_of_the_same_case_are_replaced(room: Path, tmp_path: Path) -> None:
    ask = ("predict", "--model", room / "tiny", "-o", tmp_path / "out")
    for _ in range(2):
        said(here(*ask, room / STUDY))
    refusal(here(*ask, room / "BraTS2021_00008"), STUDY, "BraTS2021_00008")
    names = {f"{bids_stem(STUDY, 'dseg')}{end}" for end in (".nii.gz", ".tsv", ".txt", ".ctbl")}
    names |= {"prediction.json", "dataset_description.json", ".bidsignore"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


@pytest.mark.parametrize("command", ["inspect", "evaluate", "dissect"])
def test_warnings_of_the_loader_are_printed_once(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    real = loading.load_model

    def noted(*given: Any, **named: Any) -> Any:
        return dataclasses.replace(real(*given, **named), notes=(NOTE,))

    monkeypatch.setattr(loading, "load_model", noted)
    cohort = tmp_path / "cohort"
    cases.write_study(cohort)
    case = cohort / STUDY if command == "inspect" else cohort
    more = {"inspect": ("--target", "WT"), "dissect": ("--no-tissues", "--causal", "0")}
    run = here(
        command, case, "--model", room / "tiny", *more.get(command, ()), "-o", tmp_path / "out",
    )  # fmt: skip
    assert said(run).count(f"Warning: {NOTE}") == 1
    if command == "inspect":
        assert json.loads((tmp_path / "out" / "flow.json").read_text())["warnings"].count(NOTE) == 1


def test_inspect_prints_warnings_about_the_prediction(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(*given: Any) -> Any:
        return dataclasses.replace(read_output(*given), warnings=("the classes overlap",))

    monkeypatch.setattr(answer, "read_output", odd)
    out = tmp_path / "out"
    run = here("inspect", room / STUDY, "--model", room / "tiny", "--target", "WT", "-o", out)
    assert said(run).count("Warning: the classes overlap") == 1
    assert "the classes overlap" in json.loads((out / "flow.json").read_text())["warnings"]


@pytest.mark.skipif(not hasattr(signal, "SIGTERM"), reason="no such signal here")
def test_a_terminated_run_leaves_no_files(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: Any, **__: Any) -> None:
        assert list(tmp_path.glob(".neuroxai-*"))
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("the run continued")

    monkeypatch.setattr(session, "open", ended)
    before = signal.getsignal(signal.SIGTERM)
    run = here("predict", room / STUDY, "--model", room / "tiny", "-o", tmp_path / "out")
    assert run.returncode == 143, run.stderr
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is before


def interrupt(method: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C when a method of a target starts."""
    before = Control.enter
    # A runner in the background may ignore the signal, which a process inherits.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def enter(control: Control, stage: str) -> None:
        before(control, stage)
        if stage == f"{target}: {method}":
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Control, "enter", enter)


def explain_interrupted(room: Path, out: Path) -> Run:
    return here(
        "explain", room / STUDY, "--model", room / "tiny", "--method", "vanilla_gradient",
        "--method", "grad_cam", "--target", "WT", "--target", "ET", "-o", out,
    )  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is not a signal there")
def test_ctrl_c_keeps_the_finished_methods_and_says_so(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt("Grad-CAM", "ET", monkeypatch)
    run = explain_interrupted(room, tmp_path / "out")
    assert run.returncode == 130, run.stderr
    last = run.stderr.splitlines()[-1]
    assert last == (
        f"neuroxai: interrupted; kept in {tmp_path / 'out'}: WT: vanilla_gradient, grad_cam; "
        "ET: vanilla_gradient. Not computed: ET: grad_cam"
    )
    assert "ET, vanilla_gradient: " in run.stdout
    names = {path.name for path in (tmp_path / "out").iterdir()}
    maps = {name.partition("label-")[2] for name in names if name.endswith("_statmap.nii.gz")}
    assert maps == {
        "WT_desc-vanillaGradient_statmap.nii.gz", "WT_desc-gradCam_statmap.nii.gz",
        "ET_desc-vanillaGradient_statmap.nii.gz",
    }  # fmt: skip
    assert {name.replace(".nii.gz", ".json") for name in names} <= names | {
        name.replace(".nii.gz", ".json") for name in names if "_dseg" in name
    }
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["interrupted"] is True
    assert summary["targets"]["ET"]["unfinished"] == ["grad_cam"]
    assert list(tmp_path.glob(".neuroxai-*")) == []


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is not a signal there")
def test_ctrl_c_before_the_first_map_leaves_no_files_and_says_so(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt("Vanilla gradient", "WT", monkeypatch)
    run = explain_interrupted(room, tmp_path / "out")
    assert run.returncode == 130, run.stderr
    assert run.stderr.splitlines()[-1] == "neuroxai: interrupted; nothing was written"
    assert not list(tmp_path.iterdir())


def test_files_that_were_not_added_are_dropped(tmp_path: Path) -> None:
    with Results(tmp_path / "out") as results:
        for name in ("kept.txt", "half.txt"):
            (results.folder / name).write_text(name)
        results.add(results.folder / "kept.txt")
        results.drop_unfinished()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["kept.txt"]
