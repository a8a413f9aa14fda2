"""``neuroxai measure`` and ``neuroxai metrics`` as a user calls them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import pytest

import cases
from cases import STUDY, tiny
from command_line import here, refusal, said
from neuroxai.metrics import METRICS


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measure")
    cases.write_study(folder)
    tiny(folder / "tiny", ("background", "NCR", "ED", "ET"), {"WT": ("NCR", "ED", "ET")})
    return folder


def test_values_are_printed_and_written(room: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = here(
        "measure", room / STUDY, "--model", room / "tiny", "--method", "vanilla_gradient",
        "--metric", "auroc", "--metric", "deletion", "--set", "deletion.steps=2", "--set",
        "deletion.remover=zero", "--target", "WT", "-o", out,
    )  # fmt: skip
    text = said(run)
    assert run.returncode == 0, run.stderr
    assert "AUROC ↑" in text
    assert "Below the line: maps that know nothing of the network." in text
    assert "not for clinical use" in text
    with (out / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["metric"] for row in rows} == {"auroc", "deletion"}
    own = [row for row in rows if row["map"] == "vanilla_gradient"]
    assert [row["trivial"] for row in own] == ["no", "no"]
    (auroc,) = (row for row in own if row["metric"] == "auroc")
    assert auroc["chance"] == "0.5"
    content = json.loads((out / "metrics.json").read_text())
    assert content["case"] == STUDY
    (target,) = content["targets"]
    assert target["maps"]["vanilla_gradient"]["deletion"]["parameters"]["steps"] == 2
    assert "not for clinical use" in content["use"]


def test_a_map_of_another_tool(room: Path, tmp_path: Path) -> None:
    truth = nib.load(next((room / STUDY).glob("*seg.nii.gz")))
    path = tmp_path / "other.nii.gz"
    nib.save(nib.Nifti1Image((truth.get_fdata() > 0).astype("float32"), truth.affine), path)
    run = here(
        "measure", room / STUDY, "--model", room / "tiny", "--map", f"other={path}", "--metric",
        "relevance_mass_accuracy", "--target", "WT", "--no-trivial", "--json", "-o",
        tmp_path / "out",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    (target,) = json.loads(run.stdout)["result"]["targets"]
    assert target["maps"] == {"other": target["maps"]["other"]}
    assert target["maps"]["other"]["relevance_mass_accuracy"]["values"] == [1.0]


def test_wrong_options_are_refused_at_once(room: Path, tmp_path: Path) -> None:
    common = ["measure", room / STUDY, "--model", room / "tiny", "-o", tmp_path / "out"]
    for options, words in (
        (["--metric", "aurok"], "did you mean 'auroc'"),
        (["--metric", "auroc", "--set", "deletion.steps=3"], "add --metric deletion"),
        (["--metric", "deletion", "--set", "deletion.step=3"], "has no parameter 'step'"),
        (["--map", "x"], "expected NAME=PATH"),
    ):  # fmt: skip
        refusal(here(*common, *options), words)
    assert not (tmp_path / "out").exists()


def test_metrics_are_listed_and_described() -> None:
    text = said(here("metrics"))
    assert all(name in text for name in METRICS)
    assert "remove" in said(here("metrics", "deletion"))
    listed = json.loads(here("metrics", "--json").stdout)["result"]["metrics"]
    assert [each["name"] for each in listed] == [*METRICS]
    refusal(here("metrics", "deletio"), "did you mean 'deletion'")
