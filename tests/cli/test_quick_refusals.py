"""Errors in options, paths and headers are found before torch is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import cases
from cases import STUDY, tiny
from command_line import Run, refusal

HEAVY = ("torch", "scipy", "matplotlib", "monai", "lightning")

MAIN = """
import sys
from neuroxai.cli import main
try:
    main()
finally:
    print("imported:", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def run(*arguments: object) -> tuple[Run, set[str]]:
    """Run a command in a process of its own; return it with the names of imported packages."""
    command = [sys.executable, "-c", MAIN, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return done, set(done.stdout.splitlines()[-1].split()[1:])


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quick")
    cases.write_study(folder)
    tiny(folder / "tiny", ("background", "NCR", "ED", "ET"), {"WT": ("NCR", "ED", "ET")})
    return folder


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--device", "gpu"], "'gpu'"),
        (["--memory", "lots"], "'lots'"),
        (["--precision", "fp8"], "'fp8'"),
        (["--within", "nonsense"], "'nonsense'"),
        (["--within", "lesion:x"], "lesion:1"),
        (["--within", "lesion:0"], "lesion:1"),
        (["--scale", "odds"], "unknown scale 'odds'"),
        (["--method", "gradcam"], "'grad_cam'"),
        (["--method", "smoothgrad", "--set", "smoothgrad.sample=3"], "'samples'"),
        (["--method", "smoothgrad", "--layer", "enter"], "'enter'"),
        (["--method", "grad_cam", "--layer-grid", "14"], "14x14"),
        (["--method", "smoothgrad", "--layer-grid", "14x14"], "auto@14x14"),
        (["--method", "integrated_gradients", "--baseline", "blurr"], "'blur'"),
        (["--method", "grad_cam", "--baseline", "zero"], "no requested method has a baseline"),
        (["--layout", "brats1999"], "brats1999"),
        (["--file", "T1"], "NAME=PATH"),
        (["--model", "nowhere"], "nowhere"),
        (["--model", "package.module:factory"], "--weights"),
    ],
)
def test_options_are_checked_without_torch(room: Path, options: list[str], word: str) -> None:
    done, imported = run("explain", room / STUDY, *options)
    refusal(done, word)
    assert not imported & {*HEAVY, "numpy", "nibabel"}


@pytest.mark.parametrize("command", ["explain", "inspect", "shapley"])
def test_masks_are_checked_without_torch(room: Path, command: str, tmp_path: Path) -> None:
    """A missing mask, and one on another grid, written by nibabel."""
    mask = tmp_path / "mask.nii.gz"
    ask = (command, room / STUDY, "--model", room / "tiny", "--within", mask)
    done, imported = run(*ask)
    refusal(done, "mask.nii.gz", "no such file")
    assert "torch" not in imported
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6), np.uint8), np.eye(4)), mask)
    done, imported = run(*ask)
    refusal(done, "mask.nii.gz", "(4, 5, 6)")
    assert "torch" not in imported


@pytest.mark.parametrize(
    "command", ["explain", "inspect", "predict", "shapley", "evaluate", "dissect"]
)
def test_folders_are_checked_without_torch(tmp_path: Path, command: str) -> None:
    done, imported = run(command, tmp_path / "nowhere")
    refusal(done, "nowhere", "does not exist")
    assert not imported & {*HEAVY, "numpy", "nibabel"}


@pytest.mark.parametrize("command", ["explain", "inspect", "predict", "shapley"])
def test_missing_modalities_and_bad_headers_are_found_without_torch(
    room: Path, tmp_path: Path, command: str
) -> None:
    study = cases.write_study(tmp_path)
    ask = (command, study, "--model", room / "tiny", "-o", tmp_path / "out")
    scan = study / f"{STUDY}_t2.nii.gz"
    scan.write_bytes(scan.read_bytes()[:40])
    done, imported = run(*ask)
    refusal(done, "t2.nii.gz")
    assert "torch" not in imported
    scan.unlink()
    done, imported = run(*ask)
    refusal(done, "T2 not found", "--file MODALITY=PATH")
    assert not imported & {*HEAVY, "numpy", "nibabel"}
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command", [["methods"], ["models", "list"], ["--help"], ["explain", "--help"], ["--version"]]
)
def test_lists_and_help_need_no_torch(command: list[str]) -> None:
    done, imported = run(*command)
    assert done.returncode == 0, done.stderr
    assert not imported & {*HEAVY, "numpy", "nibabel"}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--config", "phantom-segmentatoin"], "phantom-segmentation"),
        (["--config", "phantom-segmentation", "--set", "batches=2"], "batch"),
    ],
)
def test_configurations_are_checked_without_torch(
    tmp_path: Path, arguments: list[str], word: str
) -> None:
    done, imported = run("train", *arguments, "-o", tmp_path / "out")
    refusal(done, word)
    assert "torch" not in imported
    assert not (tmp_path / "out").exists()
