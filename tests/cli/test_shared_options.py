"""Options that several commands share, in the commands that had them last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import cases
from cases import STUDY, tiny
from command_line import here, refusal, said
from neuroxai.workflows import evaluate
from neuroxai.workflows import predict as workflow


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    for name in (STUDY, "BraTS2021_00008"):
        cases.write_study(folder / "cohort", name)
    torch.manual_seed(3)
    tiny(folder / "tiny", ("background", "NCR", "ED", "ET"), {"WT": ("NCR", "ED", "ET")})
    rows = [
        "case,patient,grade,site,fold,part",
        f"{STUDY},p1,,,,train",
        "BraTS2021_00008,p2,,,,test",
    ]
    (folder / "split.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_dissect_takes_a_part_of_a_split(room: Path, tmp_path: Path) -> None:
    words = ("dissect", room / "cohort", "--model", room / "tiny", "--no-tissues", "--causal", 0,
             "--split", room / "split.csv", "-o", tmp_path / "out", "--json")  # fmt: skip
    found = json.loads(here(*words).stdout)["result"]
    assert found["cases"] == ["BraTS2021_00008"]
    refusal(here(*words, "--part", "tset"), "tset", "test")
    refusal(here(*words, "--part", "validation"), "no case belongs to the part validation")


def test_evaluate_passes_the_limit_of_memory_on(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[Any] = []
    predict = workflow.predict

    def seen(*given: Any, memory: Any = None, **more: Any) -> Any:
        limits.append(memory)
        return predict(*given, memory=memory, **more)

    monkeypatch.setattr(evaluate, "predict", seen)
    said(here("evaluate", room / "cohort", "--model", room / "tiny", "--memory", "3GB",
              "--split", room / "split.csv", "-o", tmp_path / "out"))  # fmt: skip
    assert limits == ["3GB"]
    wrong = here("evaluate", room / "cohort", "--model", room / "tiny", "--memory", "4 xx")
    refusal(wrong, "4 xx")


def test_train_takes_a_layout(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def run(config: Any, *_: Any, **__: Any) -> Path:
        seen.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr("neuroxai.training.train", run)
    words = ("train", "--config", "brats2021-segmentation", "--data", room / "cohort",
             "-o", tmp_path / "run")  # fmt: skip
    stopped = here(*words, "--layout", "brats2020")
    assert stopped.returncode == 130
    assert stopped.stderr.splitlines()[-1] == "neuroxai: interrupted; no step was saved yet"
    assert seen[0].data.cohort.layout == "brats2020"
    refusal(here(*words, "--layout", "brats1999"), "brats1999")


def test_an_exit_of_lightning_after_ctrl_c_is_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any, **__: Any) -> Path:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SystemExit(1)  # noqa: B904 - as Lightning does

    monkeypatch.setattr("neuroxai.training.train", run)
    monkeypatch.setattr("neuroxai.training.loop.loop.last_step", lambda out: 120)
    stopped = here("train", "--config", "phantom-grading", "-o", tmp_path / "run")
    assert stopped.returncode == 130
    assert stopped.stderr.splitlines()[-1] == (
        "neuroxai: interrupted; the first 120 steps are kept; continue with --resume"
    )


def test_explain_writes_a_file_per_modality(room: Path, tmp_path: Path) -> None:
    found = json.loads(
        here(
            "explain", room / "cohort" / STUDY, "--model", room / "tiny", "--target", "WT",
            "--method", "vanilla_gradient", "--split-modalities", "--json", "-o", tmp_path / "out",
        ).stdout
    )  # fmt: skip
    files = found["result"]["targets"]["WT"]["methods"]["vanilla_gradient"]["files"]
    assert [name.partition("desc-")[2] for name in files] == [
        f"vanillaGradient{name}_statmap.nii.gz" for name in cases.MODALITIES
    ]
    written = {Path(path).name for path in found["files"]}
    assert {*files} <= written
    assert {name.replace(".nii.gz", ".json") for name in files} <= written


def test_phantoms_as_json_and_as_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def grown(out: Path, seeds: range, **_: Any) -> list[Path]:
        return [out / f"case-{seed}" for seed in seeds]

    monkeypatch.setattr("neuroxai.data.phantom.write_cohort", grown)
    words = ("phantom", "-n", 2, "--seed", 11, "-o", tmp_path / "cohort")
    paths = [str(tmp_path / "cohort" / f"case-{seed}") for seed in (11, 12)]
    assert json.loads(here(*words, "--json").stdout)["result"]["cases"] == paths
    quiet = here(*words, "--quiet")
    assert quiet.stdout.splitlines() == paths
    assert quiet.stderr == ""
    assert "Written: 2 cases in" in said(here(*words))
    assert "Written: 1 case in" in said(here("phantom", "-o", tmp_path / "cohort"))
