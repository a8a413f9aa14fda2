"""Evaluation of networks on cohorts: scores, excluded cases, files."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from matplotlib import image
from torch import Tensor, nn

from neuroxai.core.errors import CaseError, ModelError
from neuroxai.core.probe.ensemble import Mirrored
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Region
from neuroxai.data.brats import read_case, write_case
from neuroxai.data.case import CLASSES, Case
from neuroxai.data.layouts import LAYOUTS
from neuroxai.models.card import Card
from neuroxai.models.model import Model
from neuroxai.reports.evaluate import write_evaluation
from neuroxai.reports.evaluation_scores import (
    segmentation_scores,
)
from neuroxai.reports.evaluation_tables import markdown
from neuroxai.workflows.evaluate import (
    Evaluation,
    Settings,
    cases_of,
    evaluate,
)
from neuroxai.workflows.explain import explain
from neuroxai.workflows.predict import predict

SHAPE = (20, 24, 18)
NCR, ED, ET = (CLASSES.index(name) for name in ("NCR", "ED", "ET"))


def study(number: int, *, layout: str = "brats2021", grade: Any = None, **changes: Any) -> Case:
    """FLAIR encodes each voxel's class: 10 outside the tumor, 20, 30 and 40 inside."""
    truth = np.zeros(SHAPE, np.uint8)
    truth[4:12, 6:14, 5:11] = ED
    truth[6:10, 8:12, 6:9] = NCR
    truth[7:9, 9:11, 6 : 7 + number % 2] = ET
    brain = np.zeros(SHAPE, bool)
    brain[2:18, 3:21, 2:16] = True
    name = f"BraTS2021_{number:05}" if layout == "brats2021" else f"BraTS19_ABC_{number:03}_1"
    case = Case(
        name=name,
        volumes={"FLAIR": np.where(brain, 10.0 + 10 * truth, 0).astype(np.float32)},
        affine=np.array([[-1.5, 0, 0, 0], [0, -1, 0, 23], [0, 0, 2, 0], [0, 0, 0, 1.0]]),
        layout=LAYOUTS[layout],
        truth=truth,
        grade=grade,
    )
    return dataclasses.replace(case, **changes)


def segmenter(network: nn.Module | None = None, **changes: Any) -> Model:
    card = Card(
        name="reader",
        architecture="deepseg",
        arguments={},
        task="segmentation",
        modalities=("FLAIR",),
        classes=("background", "NCR", "ED", "ET"),
        regions={"WT": ("NCR", "ED", "ET"), "TC": ("NCR", "ET"), "ET": ("ET",)},
        activation="softmax",
        preprocessing={"modalities": ["FLAIR"], "intensity": "minmax", "divisor": 2},
        weights_sha256="0" * 64,
    )
    return Model((network or Levels()).eval(), card.replace(**changes), Path(), "0" * 64)


class Levels(nn.Module):
    """Predict classes from the intensity, shifted along X by ``shift`` voxels."""

    def __init__(self, shift: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        level = x.roll(self.shift, dims=2)
        # Air is 0; the brain's 10, 20, 30 and 40 are scaled by the brightest.
        marks = torch.tensor([0.25, 0.5, 0.75, 1.0])
        near = [-((level - mark) ** 2) for mark in marks]
        near[0] = torch.maximum(near[0], -(level**2))
        return torch.cat(near, dim=1) * 99 + self.weight


def cohort(folder: Path, cases: list[Case]) -> list[Path]:
    return [write_case(case, folder) for case in cases]


def test_a_perfect_prediction_has_perfect_scores(tmp_path: Path) -> None:
    folders = cohort(tmp_path, [study(n) for n in range(3)])
    found = evaluate(segmenter(), folders)
    assert found.data == "brats2021"
    assert [case.name for case in found.segmented] == [f"BraTS2021_0000{n}" for n in range(3)]
    for case in found.segmented:
        for overlap in case.regions.values():
            assert (overlap.dice, overlap.hausdorff95_mm) == (1, 0)
            assert overlap.found_ml == overlap.true_ml > 0


def test_a_prediction_shifted_by_one_voxel_has_the_voxels_width_as_distance(tmp_path: Path) -> None:
    folders = cohort(tmp_path, [study(1)])
    (case,) = evaluate(segmenter(Levels(shift=1)), folders).segmented
    assert case.regions["WT"].hausdorff95_mm == pytest.approx(1.5)
    truth = study(1).truth
    assert truth is not None
    # The network sees RAS: a step along its X is one against the file's first axis.
    moved = np.roll(truth, -1, axis=0)
    both = ((truth > 0) & (moved > 0)).sum()
    assert case.regions["WT"].dice == pytest.approx(both / (truth > 0).sum())
    assert case.regions["ET"].true_ml == pytest.approx((truth == ET).sum() * 3e-3)


def test_small_enhancement_is_relabeled_as_necrosis_on_request(tmp_path: Path) -> None:
    folders = cohort(tmp_path, [study(0), study(1)])
    volumes = [float(np.sum(study(n).truth == ET)) * 3 for n in (0, 1)]
    settings = Settings(smallest_enhancement_mm3=(volumes[0] + volumes[1]) / 2)
    small, large = evaluate(segmenter(), folders, settings).segmented
    assert (small.regions["ET"].dice, small.regions["TC"].dice) == (0, 1)
    assert small.regions["ET"].hausdorff95_mm == pytest.approx(
        np.linalg.norm(np.multiply(SHAPE, (1.5, 1, 2)))
    )
    assert (large.regions["ET"].dice, large.regions["TC"].dice) == (1, 1)


def test_the_minimum_of_the_settings_replaces_that_of_the_card(
    tmp_path: Path,
) -> None:
    folders = cohort(tmp_path, [study(0)])
    volume = float(np.sum(study(0).truth == ET)) * 3
    model = segmenter()
    card = model.card.replace(postprocessing={"smallest_enhancement_mm3": volume + 1})
    careful = dataclasses.replace(model, card=card)
    assert _et(evaluate(careful, folders)) == 0
    assert evaluate(careful, folders).settings.smallest_enhancement_mm3 == volume + 1
    assert _et(evaluate(careful, folders, Settings(smallest_enhancement_mm3=0))) == 1
    assert _et(evaluate(model, folders)) == 1

    case = read_case(folders[0], modalities=("FLAIR",))
    answer = predict(careful, case)
    assert answer.labels is not None
    assert not (answer.labels == ET).any()
    assert any(
        f"{volume:.0f} mm³ of enhancing tumor were relabeled" in each for each in answer.warnings
    )
    maps = explain(careful, case, methods=["vanilla_gradient"], target=Region("ET"))
    assert any("relabeled as necrosis" in each for each in maps.warnings)
    # What is explained is the network, not what is made of its answer.
    plain = explain(model, case, methods=["vanilla_gradient"], target=Region("ET"))
    kept = [each["vanilla_gradient"].explanation.values for each in (maps, plain)]
    assert torch.equal(*kept)


def _et(found: Evaluation) -> float:
    return found.segmented[0].regions["ET"].dice


class Sided(nn.Module):
    """A network that prefers one side, in 2D and 3D."""

    def forward(self, x: Tensor) -> Tensor:
        ramp = torch.linspace(0, 1, x.shape[2]).reshape(-1, *[1] * (x.dim() - 3))
        return torch.cat([x, x * ramp + 0.1], dim=1)


@pytest.mark.parametrize("shape", [(2, 1, 6, 7, 5), (2, 1, 6, 7)])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_mirrored_predictions_are_the_mean_over_all_mirror_images(
    shape: tuple[int, ...], activation: Literal["softmax", "sigmoid"]
) -> None:
    x = torch.rand(*shape, generator=torch.Generator().manual_seed(1))
    axes = range(2, x.dim())
    act = torch.sigmoid if activation == "sigmoid" else lambda z: z.softmax(1)
    expected, count = torch.zeros(()), 0
    for bits in range(2 ** len(axes)):
        chosen = [axis for place, axis in enumerate(axes) if bits >> place & 1]
        expected = expected + act(Sided()(x.flip(chosen))).flip(chosen)
        count += 1
    assert count == 2 ** len(axes)
    torch.testing.assert_close(
        act(Mirrored(Sided(), Outputs(activation=activation))(x)), expected / count
    )


def test_flips_do_not_change_the_model(tmp_path: Path) -> None:
    folders = cohort(tmp_path, [study(1)])
    model = segmenter(Levels(shift=1))
    (plain,) = evaluate(model, folders).segmented
    (mirrored,) = evaluate(model, folders, Settings(flips=True)).segmented
    assert isinstance(model.network, Levels)
    # Shifted one way and the other in equal shares: other answers, as wide on both sides.
    assert mirrored.regions["WT"].dice != plain.regions["WT"].dice


class Grader(nn.Module):
    """Predict high grade if the slice's maximum is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        high = self.weight * 8 * (x.flatten(1).mean(1) - 0.3)
        return torch.stack([-high, high], dim=1)


def grader() -> Model:
    card = Card(
        name="grader",
        architecture="resnet50",
        arguments={},
        task="classification",
        modalities=("FLAIR",),
        classes=("LGG", "HGG"),
        activation="softmax",
        preprocessing={
            "modalities": ["FLAIR"],
            "intensity": "minmax",
            "plane": "axial",
            "size": [20, 24],
        },
        weights_sha256="0" * 64,
    )
    return Model(Grader().eval(), card, Path(), "0" * 64)


def test_a_classifier_is_scored_on_slices_and_excluded_cases_are_listed(
    tmp_path: Path,
) -> None:
    healthy = study(7, layout="brats2019", grade="HGG", truth=np.zeros(SHAPE, np.uint8))
    folders = cohort(
        tmp_path,
        [
            study(0, layout="brats2019", grade="HGG"),
            study(1, layout="brats2019", grade="LGG"),
            study(5, layout="brats2019"),
            healthy,
        ],
    )
    found = evaluate(grader(), folders, Settings(slices=3))
    assert [case.truth for case in found.graded] == [1, 0]
    assert all(case.probabilities.shape == (3, 2) for case in found.graded)
    for case in found.graded:
        np.testing.assert_allclose(case.probabilities.sum(axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(case.together, case.probabilities.mean(axis=0))
    assert found.left_out == {
        "BraTS19_ABC_005_1": "has no grade",
        "BraTS19_ABC_007_1": "has no tumor to choose slices",
    }
    with pytest.raises(CaseError, match=r"all cases are excluded; BraTS19_ABC_005_1: has no grade"):
        evaluate(grader(), folders[2:3])


def test_a_segmenter_of_other_classes_raises_an_error(tmp_path: Path) -> None:
    folders = cohort(tmp_path, [study(1)])
    other = segmenter(classes=("background", "bone", "fat", "air"), regions={})
    with pytest.raises(ModelError, match="not the labels of brain-tumor cases"):
        evaluate(other, folders)


def test_a_page_omits_scores_that_were_not_measured(tmp_path: Path) -> None:
    folders = cohort(tmp_path, [study(n) for n in range(2)])
    found = evaluate(segmenter(Levels(shift=1)), folders)
    text = markdown(found)
    assert "not measured" not in text, "it is BraTS 2021 itself"
    elsewhere = markdown(dataclasses.replace(found, data="synthetic brats2021"))
    assert elsewhere.count("not measured") == 3
    assert "| 84.10 | 87.33 | 92.00 |" in text
    assert "not for clinical use" in text
    value = segmentation_scores(found)["WT"]["dice"].value
    assert f"{100 * value:.1f}" in text


def test_all_files_have_the_same_scores(tmp_path: Path) -> None:
    folders = cohort(tmp_path / "in", [study(n) for n in range(3)])
    found = evaluate(segmenter(Levels(shift=1)), folders)
    written = write_evaluation(found, tmp_path / "out")
    assert {path.name for path in written} == {
        "cases.csv", "tables.csv", "evaluation.json", "evaluation.md", "evaluation.png",
    }  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "out" / "cases.csv").read_text().splitlines()))
    mean = np.mean([float(row["WT_dice"]) for row in rows])
    table = list(csv.DictReader((tmp_path / "out" / "tables.csv").read_text().splitlines()))
    (line,) = [r for r in table if (r["region"], r["measure"]) == ("WT", "dice")]
    assert float(line["value"]) == pytest.approx(mean, abs=1e-4)
    assert float(line["low_95"]) <= mean <= float(line["high_95"])
    summary = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert summary["regions"]["WT"]["dice"]["value"] == pytest.approx(mean, abs=1e-4)
    assert summary["use"].startswith("Research use only")
    assert image.imread(tmp_path / "out" / "evaluation.png").std() > 0.02


def test_one_patient_has_no_interval(tmp_path: Path) -> None:
    folders = cohort(tmp_path / "in", [study(1)])
    found = evaluate(segmenter(), folders)
    estimate = segmentation_scores(found)["ET"]["dice"]
    assert math.isnan(estimate.low)
    assert estimate.percent() == "100.0"
    write_evaluation(found, tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert summary["regions"]["ET"]["dice"]["low_95"] is None


def test_only_the_cases_of_the_split_are_scored(tmp_path: Path) -> None:
    cohort(tmp_path, [study(n) for n in range(4)])
    names = {"BraTS2021_00002": "p", "BraTS2021_00000": "p"}
    assert [folder.name for folder in cases_of(tmp_path, names)] == list(names)
    assert len(list(cases_of(tmp_path, None))) == 4
    with pytest.raises(CaseError, match="case X of the split does not exist"):
        list(cases_of(tmp_path, {"X": "p"}))


def test_cases_of_the_same_name_raise_an_error(tmp_path: Path) -> None:
    for patient in ("P1", "P2"):
        written = write_case(study(1, name="baseline"), tmp_path / patient, "plain")
        assert written.name == "baseline"
    with pytest.raises(CaseError, match="have the same case name baseline"):
        list(cases_of(tmp_path, None))


def test_bids_cases_are_named_by_their_files(tmp_path: Path) -> None:
    """All folders are named anat, and all sessions are of one patient."""
    for name in ("sub-1_ses-a", "sub-1_ses-b", "sub-2_ses-a"):
        subject, session = name.split("_")
        folder = tmp_path / subject / session / "anat"
        written = write_case(study(1, name=name), tmp_path / "made", "brats2021")
        folder.mkdir(parents=True)
        for ending, own in (("flair", "FLAIR"), ("seg", "seg")):
            (written / f"{name}_{ending}.nii.gz").rename(folder / f"{name}_{own}.nii.gz")
        written.rmdir()
    found = evaluate(segmenter(), list(cases_of(tmp_path, None)))
    patients = {case.name: case.patient for case in found.segmented}
    assert patients == {
        "sub-1_ses-a": "sub-1", "sub-1_ses-b": "sub-1", "sub-2_ses-a": "sub-2",
    }  # fmt: skip


def test_visits_of_one_patient_are_one_patient(tmp_path: Path) -> None:
    names = ("BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "BraTS-GLI-00002-000")
    cases = [
        dataclasses.replace(study(1, name=name), layout=LAYOUTS["brats2023"]) for name in names
    ]
    found = evaluate(segmenter(), cohort(tmp_path, cases))
    assert [case.patient for case in found.segmented] == [name[:15] for name in names]
    assert "3 of 2 patients" in markdown(found)


def test_declared_regions_of_own_classes_are_scored(tmp_path: Path) -> None:
    """A network of background and tumor, shifted: the Dice is that of the whole tumor."""

    class Binary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.levels = Levels(shift=1)

        def forward(self, x: Tensor) -> Tensor:
            scores = self.levels(x)
            return torch.cat([scores[:, :1], scores[:, 1:].amax(1, keepdim=True)], 1)

    folders = cohort(tmp_path, [study(1)])
    classes = ("background", "tumor")
    reader = segmenter(Binary(), classes=classes, regions={"WT": ("tumor",)})
    found = evaluate(reader, folders)
    assert found.regions == ("WT",)
    truth = study(1).truth
    assert truth is not None
    moved = np.roll(truth, -1, axis=0)
    overlap = found.segmented[0].regions["WT"]
    assert overlap.dice == pytest.approx(((truth > 0) & (moved > 0)).sum() / (truth > 0).sum())
    assert overlap.found_ml == pytest.approx((moved > 0).sum() * 3e-3)
    written = [path.name for path in write_evaluation(found, tmp_path / "out")]
    assert "evaluation.json" in written
    prediction = predict(reader, read_case(folders[0], modalities=["FLAIR"]))
    assert prediction.dice() == {"WT": pytest.approx(overlap.dice)}
    with pytest.raises(ModelError, match=r'"regions": \{"WT": \["tumor"\]\}'):
        evaluate(segmenter(Binary(), classes=classes, regions={}), folders)


def test_regions_that_a_network_cannot_predict_are_not_scored(tmp_path: Path) -> None:
    class Whole(Levels):
        def forward(self, x: Tensor) -> Tensor:
            return 9.0 - 18.0 * (super().forward(x).argmax(dim=1, keepdim=True) == 0)

    reader = segmenter(Whole(), classes=("WT",), regions={"WT": ("WT",)}, activation="sigmoid")
    folders = cohort(tmp_path / "cohort", [study(n) for n in range(2)])
    found = evaluate(reader, folders)
    assert found.regions == ("WT",)
    assert list(segmentation_scores(found)) == ["WT"]
    assert all(case.regions["WT"].dice == 1 for case in found.segmented)
    page = markdown(found)
    assert page.count("not predicted") == 2
    written = {path.name: path for path in write_evaluation(found, tmp_path / "out")}
    header = written["cases.csv"].read_text().splitlines()[0]
    assert "WT_dice" in header
    assert "ET" not in header
    answer = predict(reader, read_case(folders[0], modalities=["FLAIR"]))
    assert set(answer.dice()) == set(answer.volumes_ml()) == {"WT"}


class Void(Levels):
    """Return NaN or infinity, as a diverged network does."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * math.nan


@pytest.mark.parametrize("flips", [False, True])
def test_predictions_that_are_not_finite_are_not_scored(tmp_path: Path, flips: bool) -> None:
    folders = cohort(tmp_path, [study(n) for n in range(2)])
    with pytest.raises(ModelError, match=r"NaN|finite"):
        evaluate(segmenter(Void()), folders, Settings(flips=flips))


def test_grades_that_are_not_finite_are_not_scored(tmp_path: Path) -> None:
    void = grader()
    with torch.no_grad():
        void.network.get_parameter("weight").fill_(math.nan)
    folders = cohort(tmp_path, [study(0, layout="brats2019", grade="HGG")])
    with pytest.raises(ModelError, match=r"NaN|finite"):
        evaluate(void, folders)
