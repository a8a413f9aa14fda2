"""Commands end to end: printed output, exit codes, and files on disk."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import cases
from command_line import Run, here, neuroxai
from neuroxai.files.names import entity_value

FAST = [
    "--set", "integrated_gradients.steps=2",
    "--set", "guided_integrated_gradients.steps=3",
    "--set", "smoothgrad.samples=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    cases.write_study(folder)
    cases.segmenter(folder)
    cases.classifier(folder)
    return folder


def refused(run: Run, *words: str) -> None:
    """Check that a run failed with one line that contains these words, without a traceback."""
    assert run.returncode != 0, run.stdout
    assert "Traceback" not in run.stderr
    lines = [line for line in run.stderr.splitlines() if line.startswith("neuroxai: ")]
    assert len(lines) == 1, run.stderr
    for word in words:
        assert word in lines[0], lines[0]


@pytest.mark.slow
def test_explain_writes_all_files_on_the_grid_of_the_scan(room: Path, tmp_path: Path) -> None:
    study = room / "BraTS2021_00007"
    run = neuroxai(
        "explain", study, "--model", room / "segmenter", "--method", "all",
        "--target", "WT", "--target", "ET", *FAST, "-o", tmp_path / "out",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "not for clinical use" in run.stdout
    assert "guided_integrated_gradients" in run.stdout
    assert "brain %" in run.stdout
    assert "a map that knows nothing of the network" in " ".join(run.stdout.split())
    out = tmp_path / "out"
    source = nib.load(study / "BraTS2021_00007_t1.nii.gz")
    methods = {
        "vanilla_gradient": 4, "guided_backprop": 4, "integrated_gradients": 4,
        "guided_integrated_gradients": 4, "smoothgrad": 4, "grad_cam": 1, "guided_grad_cam": 4,
    }  # fmt: skip
    for target in ("WT", "ET"):
        for method, channels in methods.items():
            stem = out / f"sub-BraTS2021+00007_label-{target}_desc-{entity_value(method)}_statmap"
            image = nib.load(f"{stem}.nii.gz")
            grid = source.shape if channels == 1 else (*source.shape, channels)
            assert image.shape == grid
            np.testing.assert_allclose(image.affine, source.affine, atol=1e-5)
            assert np.isfinite(image.get_fdata()).all()
            sidecar = json.loads(Path(f"{stem}.json").read_text())
            assert sidecar["method"] == method
            assert sidecar["target"]["name"] == target
            assert len(sidecar["inputs"]["T1ce"]["sha256"]) == 64
            share = sidecar["evidence"]["all"]["brain"]
            assert 0 < share <= 1
            assert f"{100 * share:.0f} (" in run.stdout
        for kind in ("modalities", "planes"):
            picture = out / f"sub-BraTS2021+00007_label-{target}_montage-{kind}.png"
            assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    labels = nib.load(out / "sub-BraTS2021+00007_dseg.nii.gz")
    assert set(np.unique(np.asarray(labels.dataobj)).tolist()) <= {0, 1, 2, 4}
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["targets"]) == {"WT", "ET"}
    gap = summary["targets"]["ET"]["methods"]["integrated_gradients"]["completeness_gap"]
    assert gap is None or gap >= 0
    assert not [path for path in out.iterdir() if path.name.startswith(".") and "-" in path.name]


@pytest.mark.slow
def test_explain_a_classifier(room: Path, tmp_path: Path) -> None:
    run = here(
        "explain", room / "BraTS2021_00007", "--model", room / "classifier",
        "--method", "grad_cam", "--method", "guided_backprop", "--target", "HGG",
        "--background", "t2f", "-o", tmp_path / "out",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "sub-BraTS2021+00007_label-HGG_desc-gradCam_statmap.nii.gz" in names
    assert "sub-BraTS2021+00007_label-HGG_montage-modalities.png" in names
    assert not any("dseg" in name for name in names)


def test_predict_with_one_option_per_file(room: Path, tmp_path: Path) -> None:
    study = room / "BraTS2021_00007"
    files = [
        item
        for name, suffix in (("T1", "t1"), ("t1CE", "t1ce"), ("T2", "t2"), ("flair", "flair"))
        for item in ("--file", f"{name}={study}/BraTS2021_00007_{suffix}.nii.gz")
    ]
    run = here("predict", *files, "--model", room / "segmenter", "-o", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert "Prediction for BraTS2021_00007: WT " in run.stdout
    assert [p for p in (tmp_path / "out").iterdir() if p.name.endswith("_dseg.nii.gz")]


def test_phantom_methods_version_help(tmp_path: Path) -> None:
    run = here("phantom", "-o", tmp_path / "cohort", "--spacing", "3", "--seed", "4")
    assert run.returncode == 0, run.stderr
    assert nib.load(
        tmp_path / "cohort" / "BraTS2021_00004" / "BraTS2021_00004_seg.nii.gz"
    ).header.get_zooms() == (3, 3, 3)
    assert "smoothgrad" in here("methods").stdout
    assert here("--version").stdout.startswith("neuroxai 0.")
    assert "not for clinical use" in " ".join(neuroxai("--help").stdout.split())
    module = [sys.executable, "-m", "neuroxai", "--version"]
    run = subprocess.run(module, capture_output=True, text=True, timeout=300, check=True)
    assert run.stdout.startswith("neuroxai 0.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "gradcam"], ["did you mean 'grad_cam'?"]),
        (["--background", "T3ce"], ["--background 'T3ce'", "did you mean 'T1ce'?"]),
        (["--method", "grad_cam", "--layer", "decoder.0.conv9"], ["did you mean 'decoder.0.conv"]),
        (["--target", "EX"], ["EX", "unknown"]),
        (["--set", "smoothgrad.sample=3"], ["did you mean 'samples'?"]),
        (["--set", "smoothgrad.samples=many"], ["samples", "many"]),
        (["--model", "deepsegphantom"], ["deepsegphantom"]),
        (["--device", "tpu9"], ["tpu9"]),
    ],
)
def test_unknown_names_are_refused(
    room: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    model = [] if "--model" in arguments else ["--model", room / "segmenter"]
    method = [] if "--method" in arguments else ["--method", "all"]
    out = tmp_path / "out"
    run = here("explain", room / "BraTS2021_00007", *model, *method, *arguments, "-o", out)
    refused(run, *words)
    assert not out.exists()


def _without(folder: Path) -> None:
    (folder / "BraTS2021_00007_t1ce.nii.gz").unlink()


def _truncated(folder: Path) -> None:
    path = folder / "BraTS2021_00007_t2.nii.gz"
    path.write_bytes(path.read_bytes()[:4000])


def _empty(folder: Path) -> None:
    (folder / "BraTS2021_00007_t2.nii.gz").write_bytes(b"")


def _other_grid(folder: Path) -> None:
    path = folder / "BraTS2021_00007_flair.nii.gz"
    image = nib.load(path)
    moved = image.affine.copy()
    moved[0, 3] += 3
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), moved), path)


def _constant(folder: Path) -> None:
    path = folder / "BraTS2021_00007_t1.nii.gz"
    nib.save(nib.Nifti1Image(np.full(cases.SHAPE, 7, np.int16), cases.LPS), path)


def _nan(folder: Path) -> None:
    path = folder / "BraTS2021_00007_t1.nii.gz"
    array = np.ones(cases.SHAPE, np.float32)
    array[3, 3, 3] = np.nan
    nib.save(nib.Nifti1Image(array, cases.LPS), path)


def _labels(folder: Path) -> None:
    path = folder / "BraTS2021_00007_seg.nii.gz"
    nib.save(nib.Nifti1Image(np.full(cases.SHAPE, 3, np.uint8), cases.LPS), path)


def _damaged(folder: Path) -> None:
    path = folder / "BraTS2021_00007_t1.nii.gz"
    body = bytearray(path.read_bytes())
    body[-6] ^= 0xFF  # the checksum
    path.write_bytes(bytes(body))
    with pytest.raises((gzip.BadGzipFile, OSError)):
        gzip.decompress(bytes(body))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_without, ["T1ce"]),
        (_truncated, ["t2.nii.gz"]),
        (_empty, ["t2.nii.gz", "empty"]),
        (_other_grid, ["flair.nii.gz", "mm"]),
        (_constant, ["t1.nii.gz", "constant"]),
        (_nan, ["t1.nii.gz", "NaN"]),
        (_labels, ["seg.nii.gz", "brats2021"]),
        (_damaged, ["t1.nii.gz"]),
    ],
)
def test_common_file_faults_are_refused(
    room: Path, tmp_path: Path, harm: object, words: list[str]
) -> None:
    study = cases.write_study(tmp_path)
    assert callable(harm)
    harm(study)
    before = {path.name: path.read_bytes() for path in study.iterdir()}
    out = tmp_path / "out"
    run = here("explain", study, "--model", room / "segmenter", "-o", out, *FAST)
    refused(run, *words)
    assert not out.exists()
    assert before == {path.name: path.read_bytes() for path in study.iterdir()}


def test_folders_without_a_case_are_refused(room: Path, tmp_path: Path) -> None:
    for where in (tmp_path / "nowhere", tmp_path):
        refused(here("explain", where, "--model", room / "segmenter"), str(where))
    for run in (here, neuroxai):
        refused(run("explain", "--model", room / "segmenter"), "no case given")


def test_a_failure_between_targets_leaves_no_files(room: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = here(
        "explain", room / "BraTS2021_00007", "--model", room / "segmenter",
        "--method", "vanilla_gradient", "--target", "0", "--target", "WT",
        "--within", "lesion:500", "-o", out,
    )  # fmt: skip
    refused(run, "lesion 500")
    assert not out.exists()
