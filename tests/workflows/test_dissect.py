"""Dissection of a cohort: a planted filter, its control, and the effect of its ablation."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import cases
from command_line import here
from neuroxai.core.errors import CaseError, OutputError
from neuroxai.data.case import CLASSES, Case
from neuroxai.data.layouts import LAYOUTS
from neuroxai.data.phantom import write_cohort
from neuroxai.files.folder import Results
from neuroxai.inspection.dissection import Match
from neuroxai.models.card import Card
from neuroxai.models.model import Model
from neuroxai.reports.dissect import write_dissection
from neuroxai.workflows.dissect import Dissected, dissect

SHAPE = (28, 40, 24)


class Planted(nn.Module):
    """Filter 1 of ``see`` is on where FLAIR is over 0.6; the output says WT there."""

    def __init__(self) -> None:
        super().__init__()
        see, output = nn.Conv3d(2, 4, 1), nn.Conv3d(4, 2, 1)
        with torch.no_grad():
            for parameter in (*see.parameters(), *output.parameters()):
                parameter.zero_()
            for number, modality, weight, bias in ((0, 0, 1, 0), (1, 1, 1, -0.6), (2, 0, -1, 0.5)):
                see.weight[number, modality] = weight
                see.get_parameter("bias")[number] = bias
            output.weight[1, 1] = 10.0
            output.get_parameter("bias")[0] = 0.001
        self.see = see
        self.act = nn.ReLU()
        self.output = output

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.output(self.act(self.see(x)))
        return out


def model() -> Model:
    card = Card(
        name="planted",
        architecture="deepseg",
        arguments={},
        task="segmentation",
        modalities=("T1", "FLAIR"),
        classes=("background", "ED"),
        regions={"WT": ("ED",)},
        activation="softmax",
        preprocessing={"modalities": ["T1", "FLAIR"], "size": [32, 64, 32]},
        training={},
        metrics={},
    )
    return Model(Planted().eval(), card, Path(), "0" * 64)


def study(seed: int, **known: NDArray[np.uint8] | None) -> Case:
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    brain = (grid**2).sum(0) < 0.8
    center = rng.uniform(-0.3, 0.3, 3)[:, None, None, None]
    tumor = ((grid - center) ** 2).sum(0) < 0.1
    t1 = np.where(brain, rng.uniform(100, 200, SHAPE), 0)
    flair = np.where(
        brain, np.where(tumor, rng.uniform(180, 200, SHAPE), rng.uniform(100, 130, SHAPE)), 0
    )
    truth = np.where(tumor & brain, 2, 0).astype(np.uint8)
    return Case(
        f"case{seed}",
        {"T1": t1.astype(np.float32), "FLAIR": flair.astype(np.float32)},
        np.diag([-1.0, -1, 1, 1]),
        LAYOUTS["brats2021"],
        known.get("truth", truth),
    )


@pytest.fixture(scope="module")
def dissected() -> Dissected:
    return dissect(model(), [study(0), study(1), study(2)], tissues=False, causal=2)


def test_the_planted_filter_is_found(dissected: Dissected) -> None:
    best = dissected.best_filter("WT")
    assert (best.match.layer, best.match.filter) == ("see", 1)
    assert best.match.iou > 0.99
    assert best.explicit
    assert dissected.best_concept("see", 1).match.concept in ("WT", "ED")
    assert not dissected.best_filter("brain").explicit
    assert dissected.cases == ("case0", "case1", "case2")


def test_every_iou_has_its_control(dissected: Dissected) -> None:
    for finding in dissected.findings:
        assert 0 <= finding.control <= finding.control_best <= 1
    # FLAIR alone tells the tumor here, so some shuffled filter sees it by chance; but not always
    # the same one, and the learned figures stay as they are.
    chance = [
        dissect(model(), [study(0)], tissues=False, seed=seed).best_filter("WT")
        for seed in range(4)
    ]
    assert len({finding.control for finding in chance}) > 1
    assert min(finding.control for finding in chance) < 0.5
    assert len({finding.match.iou for finding in chance}) == 1


def test_ablating_the_planted_filter_reduces_the_dice(dissected: Dissected) -> None:
    (effect,) = [each for each in dissected.effects if each.concept == "WT"]
    assert (effect.layer, effect.filter) == ("see", 1)
    assert effect.dice["WT"] == pytest.approx(-1.0, abs=0.02)
    assert effect.score["WT"] < 0
    assert effect.control_dice["WT"] == 0
    assert effect.cases == 2


def test_a_cohort_on_disk_is_read_one_case_at_a_time(tmp_path: Path) -> None:
    folders = write_cohort(tmp_path, [5, 6], spacing=3.0)
    plain = model()
    plain.card.preprocessing["size"] = [64, 96, 64]  # type: ignore[index]
    stages: list[str] = []
    found = dissect(plain, folders, progress=lambda stage, done, total: stages.append(stage))
    assert {"GM", "WM", "CSF", "brain", "boundary"} <= set(found.concepts)
    assert found.effects == ()
    assert set(stages) == {"Dissecting"}
    assert found.shares["brain"] > 0.2


def test_user_masks_and_missing_concepts() -> None:
    def own(case: Case) -> dict[str, NDArray[np.generic]]:
        mask: NDArray[np.generic] = (case.volumes["T1"] > 150).astype(np.uint8)
        return {"bright": mask} if case.name != "case1" else {}

    found = dissect(model(), [study(0), study(2)], tissues=False, user_masks=own)
    assert found.best_filter("bright").match.filter == 0
    assert found.best_filter("bright").match.iou > 0.95
    with pytest.raises(CaseError, match="case1: the concept 'bright' of the first case is missing"):
        dissect(model(), [study(0), study(1)], tissues=False, user_masks=own)
    with pytest.raises(CaseError, match="at least one case"):
        dissect(model(), [])


def test_concepts_do_not_depend_on_the_order_of_cases_with_a_cavity() -> None:
    without, having = (replace(study(n), layout=LAYOUTS["brats2024"]) for n in (0, 1))
    truth = np.where(study(1).truth == 2, 2, 0)
    truth[:, :, :12][truth[:, :, :12] == 2] = CLASSES.index("RC")
    having = replace(having, truth=truth.astype(np.uint8))
    one = dissect(model(), [without, having], tissues=False)
    other = dissect(model(), [having, without], tissues=False)
    assert one.concepts == other.concepts
    assert "RC" in one.concepts
    assert one.shares == other.shares
    ious = [{(m.layer, m.filter, m.concept): m.iou for m in matches_of(found)}
            for found in (one, other)]  # fmt: skip
    assert ious[0] == pytest.approx(ious[1], abs=0.1)  # the first case sets the bins


def matches_of(found: Dissected) -> list[Match]:
    return [finding.match for finding in found.findings]


def test_filters_stay_ablated_when_the_fast_path_falls_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pass that is run again in stock torch has the filters ablated from its start."""
    expected = dissect(model(), [study(0)], tissues=False, causal=1).effects

    def twice(network: nn.Module, x: Tensor, work: Callable[[Tensor], Tensor]) -> Tensor:
        work(x)
        return work(x)

    monkeypatch.setattr("neuroxai.workflows.dissect.run_fast", twice)
    assert dissect(model(), [study(0)], tissues=False, causal=1).effects == expected


def test_the_network_is_left_as_found() -> None:
    plain = model()
    before = {key: value.clone() for key, value in plain.network.state_dict().items()}
    dissect(plain, [study(0)], tissues=False, causal=1)
    for key, value in plain.network.state_dict().items():
        assert torch.equal(value, before[key])
    assert not any(module._forward_hooks for module in plain.network.modules())


def test_several_filters_of_a_concept_are_ablated_one_at_a_time() -> None:
    found = dissect(model(), [study(0)], tissues=False, causal=1, best=2, others=1)
    effects = [effect for effect in found.effects if effect.concept == "WT"]
    expected = [finding.match for finding in found.best_filters("WT", 2)]
    assert [(e.layer, e.filter) for e in effects] == [(m.layer, m.filter) for m in expected]
    assert expected[0] == found.best_filter("WT").match
    assert expected[0].iou >= expected[1].iou
    assert effects[0].dice["WT"] < -0.9


def test_a_report_that_fails_leaves_no_file(
    dissected: Dissected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> Path:
        raise OutputError("the disk is full")

    monkeypatch.setattr("neuroxai.reports.dissect.draw_concepts", full)
    with pytest.raises(OutputError, match="full"):
        write_dissection(dissected, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_report_is_written_into_open_results(dissected: Dissected, tmp_path: Path) -> None:
    with Results(tmp_path / "out") as results:
        first = results.folder / "first.txt"
        first.write_text("a", encoding="utf-8")
        results.add(first)
        written = write_dissection(dissected, results)
        assert all(path.parent == results.folder for path in written)
        assert not (tmp_path / "out").exists()
    assert results.written == [tmp_path / "out" / path.name for path in (first, *written)]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        path.name for path in results.written
    }
    alone = write_dissection(dissected, tmp_path / "alone")
    assert [path.name for path in alone] == [path.name for path in written]

    def fails_later() -> None:
        with Results(tmp_path / "none") as results:
            write_dissection(dissected, results)
            raise OutputError("something fails later")

    with pytest.raises(OutputError, match="later"):
        fails_later()
    assert not (tmp_path / "none").exists()


def test_the_report_has_the_findings(dissected: Dissected, tmp_path: Path) -> None:
    table, summary, by_concept, by_filter, figure = write_dissection(dissected, tmp_path)
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(dissected.findings)
    (planted,) = [
        row for row in rows if (row["layer"], row["filter"], row["concept"]) == ("see", "1", "WT")
    ]
    assert float(planted["iou"]) > 0.99
    assert planted["kind"] == "explicit"
    assert planted["activation_layer"] == "act"
    assert float(planted["iou_at_0.005"]) <= float(planted["iou"])
    numbers = json.loads(summary.read_text(encoding="utf-8"))
    best = {entry["concept"]: entry for entry in numbers["best_filter_per_concept"]}
    assert best["WT"]["filter"] == 1
    assert len(numbers["best_concept_per_filter"]) == 6
    for path, name in (
        (by_concept, "best_filter_per_concept"),
        (by_filter, "best_concept_per_filter"),
    ):
        assert path.name == f"{name}.csv"
        with path.open(newline="") as stream:
            read = list(csv.DictReader(stream))
        assert read == [{k: str(v) for k, v in entry.items()} for entry in numbers[name]]
    effects = {effect["concept"]: effect for effect in numbers["ablation"]["effects"]}
    assert effects["WT"]["dice_change"]["WT"] == pytest.approx(-1.0, abs=0.02)
    assert numbers["use"].startswith("Research use only")
    again = write_dissection(dissected, tmp_path / "again")[-1]
    assert again.read_bytes() == figure.read_bytes()


@pytest.mark.slow
def test_the_command_line(tmp_path: Path) -> None:
    (first, _) = write_cohort(tmp_path / "cohort", [5, 6], spacing=3.0)
    (truth,) = first.glob("*_seg.nii.gz")
    mine = tmp_path / f"{first.name}_mine.nii.gz"
    mine.write_bytes(truth.read_bytes())
    regions = {"WT": ("NCR", "ED", "ET"), "ET": ("ET",)}
    classes = ("background", "NCR", "ED", "ET")
    checkpoint = cases.tiny(tmp_path / "tiny", classes, regions, size=(64, 96, 64))
    run = here(
        "dissect", tmp_path / "cohort", "--cases", 1, "--causal", 1, "-o", tmp_path / "out",
        "--model", checkpoint, "--mask", f"mine={tmp_path / '{case}_mine.nii.gz'}",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "Best filter per concept, 1 case" in run.stdout
    assert "not for clinical use" in run.stdout
    assert "ground truth of the phantom" in run.stdout
    shares = json.loads((tmp_path / "out" / "dissection.json").read_text())["concept_fractions"]
    assert {"GM", "WM", "CSF"} <= set(shares)
    assert shares["mine"] == shares["WT"] > 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "dissection.csv", "dissection.json", "dissection.png",
        "best_filter_per_concept.csv", "best_concept_per_filter.csv",
    }  # fmt: skip
    (tmp_path / "nothing").mkdir()
    empty = here("dissect", tmp_path / "nothing", cwd=tmp_path)
    assert empty.returncode == 1
    assert "Traceback" not in empty.stderr
