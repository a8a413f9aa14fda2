"""Evaluation: figures by hand, what is left out and why, files that another reader understands."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import image
from scipy import stats
from torch import Tensor, nn

from neuroxai.accuracy.interval import wilson_interval
from neuroxai.core.errors import CaseError, ModelError
from neuroxai.core.probe.ensemble import Mirrored
from neuroxai.core.target.target import Region
from neuroxai.data.brats import read_case, write_case
from neuroxai.data.case import CLASSES, Case
from neuroxai.data.layouts import LAYOUTS
from neuroxai.files.folder import Results
from neuroxai.models.card import Card
from neuroxai.models.model import Model
from neuroxai.reports.evaluate import write_evaluation
from neuroxai.reports.evaluation_scores import (
    Estimate,
    cautions,
    grading_scores,
    segmentation_scores,
)
from neuroxai.reports.evaluation_tables import markdown
from neuroxai.workflows.evaluate import (
    Evaluation,
    GradedCase,
    Overlap,
    SegmentedCase,
    Settings,
    cases_of,
    evaluate,
)
from neuroxai.workflows.explain import explain
from neuroxai.workflows.predict import predict

SHAPE = (20, 24, 18)
NCR, ED, ET = (CLASSES.index(name) for name in ("NCR", "ED", "ET"))


def study(number: int, *, layout: str = "brats2021", grade: Any = None, **changes: Any) -> Case:
    """FLAIR says each voxel's class: 10 outside the tumor, 20, 30 and 40 in it."""
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
    """Tells the classes by level; ``shift`` moves the answer along X by voxels."""

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


def test_a_perfect_reader_is_perfect(tmp_path: Path) -> None:
    folders = cohort(tmp_path, [study(n) for n in range(3)])
    found = evaluate(segmenter(), folders)
    assert found.data == "brats2021"
    assert [case.name for case in found.segmented] == [f"BraTS2021_0000{n}" for n in range(3)]
    for case in found.segmented:
        for overlap in case.regions.values():
            assert (overlap.dice, overlap.hausdorff95_mm) == (1, 0)
            assert overlap.found_ml == overlap.true_ml > 0


def test_an_answer_one_voxel_aside_is_as_far_as_the_voxel_is_wide(tmp_path: Path) -> None:
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


def test_small_enhancement_is_called_necrosis_when_asked(tmp_path: Path) -> None:
    folders = cohort(tmp_path, [study(0), study(1)])
    volumes = [float(np.sum(study(n).truth == ET)) * 3 for n in (0, 1)]
    settings = Settings(smallest_enhancement_mm3=(volumes[0] + volumes[1]) / 2)
    small, large = evaluate(segmenter(), folders, settings).segmented
    assert (small.regions["ET"].dice, small.regions["TC"].dice) == (0, 1)
    assert small.regions["ET"].hausdorff95_mm == pytest.approx(
        np.linalg.norm(np.multiply(SHAPE, (1.5, 1, 2)))
    )
    assert (large.regions["ET"].dice, large.regions["TC"].dice) == (1, 1)


def test_small_enhancement_goes_where_the_card_says_so_unless_asked_otherwise(
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
    """A network with a liking for one side, in 2D and 3D."""

    def forward(self, x: Tensor) -> Tensor:
        ramp = torch.linspace(0, 1, x.shape[2]).reshape(-1, *[1] * (x.dim() - 3))
        return torch.cat([x, x * ramp + 0.1], dim=1)


@pytest.mark.parametrize("shape", [(2, 1, 6, 7, 5), (2, 1, 6, 7)])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_mirrored_answers_are_the_mean_over_all_mirror_images(
    shape: tuple[int, ...], activation: str
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
    torch.testing.assert_close(act(Mirrored(Sided(), activation)(x)), expected / count)


def test_flips_are_asked_about_and_the_model_stays_its_own(tmp_path: Path) -> None:
    folders = cohort(tmp_path, [study(1)])
    model = segmenter(Levels(shift=1))
    (plain,) = evaluate(model, folders).segmented
    (mirrored,) = evaluate(model, folders, Settings(flips=True)).segmented
    assert isinstance(model.network, Levels)
    # Shifted one way and the other in equal shares: other answers, as wide on both sides.
    assert mirrored.regions["WT"].dice != plain.regions["WT"].dice


class Grader(nn.Module):
    """High grade where the largest of the slice is bright."""

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


def test_a_classifier_is_asked_about_slices_and_cases_that_cannot_count_are_named(
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


def test_a_segmenter_of_something_else_is_refused(tmp_path: Path) -> None:
    folders = cohort(tmp_path, [study(1)])
    other = segmenter(classes=("background", "bone", "fat", "air"), regions={})
    with pytest.raises(ModelError, match="needs a segmenter of tumors"):
        evaluate(other, folders)


def graded(answers: list[tuple[str, int, list[list[float]]]]) -> Evaluation:
    return Evaluation(
        {"name": "n", "weights_sha256": "0" * 64},
        "classification",
        ("LGG", "HGG"),
        "brats2019",
        Settings(),
        graded=tuple(
            GradedCase(f"C{i}", patient, truth, tuple("abc"[: len(rows)]), np.array(rows))
            for i, (patient, truth, rows) in enumerate(answers)
        ),
    )


def test_figures_per_case_and_per_slice_by_hand() -> None:
    sure, unsure = [0.1, 0.9], [0.6, 0.4]
    found = graded(
        [
            ("p", 1, [sure, sure, unsure]),
            ("q", 1, [unsure, unsure]),
            ("r", 0, [[0.8, 0.2]]),
            ("s", 0, [[0.7, 0.3], [0.7, 0.3]]),
        ]
    )
    per_case, per_slice = grading_scores(found)
    assert per_case.confusion.tolist() == [[2, 0], [1, 1]]
    assert per_case.accuracy.value == 0.75
    assert (per_case.accuracy.low, per_case.accuracy.high) == wilson_interval(3, 4)
    assert per_case.sensitivity["HGG"].value == 0.5
    assert (per_case.sensitivity["HGG"].low, per_case.sensitivity["HGG"].high) == wilson_interval(
        1, 2
    )
    assert per_case.specificity["HGG"].value == 1
    assert per_case.roc_auc["HGG"].value == per_case.roc_auc["LGG"].value == 1
    assert per_slice.confusion.tolist() == [[3, 0], [3, 2]]
    assert per_slice.accuracy.value == pytest.approx(5 / 8)
    assert per_slice.balanced_accuracy.value == pytest.approx((1 + 2 / 5) / 2)
    low, high = wilson_interval(5, 8)
    assert (per_slice.accuracy.low, per_slice.accuracy.high) != (low, high), "slices go together"


def test_two_cases_of_one_patient_are_drawn_together(tmp_path: Path) -> None:
    """Otherwise copies of a case would make the interval narrower without any news."""
    rows = [("p", 1, [[0.1, 0.9]]), ("q", 0, [[0.2, 0.8]]), ("r", 0, [[0.9, 0.1]])]
    once = grading_scores(graded(rows))[1]
    copied = grading_scores(graded([row for row in rows for _ in range(4)]))[1]
    assert copied.accuracy == once.accuracy
    assert copied.roc_auc["HGG"] == once.roc_auc["HGG"]


def test_a_page_never_shows_what_was_not_measured(tmp_path: Path) -> None:
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
    grades = graded([("p", 1, [[0.1, 0.9]]), ("q", 0, [[0.2, 0.8]])])
    assert "not measured" not in markdown(grades)
    assert "98.62" in markdown(grades)


def test_the_files_tell_the_same_in_every_form(tmp_path: Path) -> None:
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


def test_a_classifiers_files(tmp_path: Path) -> None:
    found = graded([("p", 1, [[0.1, 0.9]] * 2), ("q", 0, [[0.2, 0.8]]), ("r", 0, [[0.9, 0.1]])])
    written = {path.name: path for path in write_evaluation(found, tmp_path)}
    assert set(written) == {
        "cases.csv", "slices.csv", "tables.csv", "evaluation.json", "evaluation.md",
        "evaluation_per-case.png", "evaluation_per-slice.png",
    }  # fmt: skip
    summary = json.loads(written["evaluation.json"].read_text())
    assert summary["per"]["case"]["confusion"] == [[1, 1], [0, 1]]
    assert summary["per"]["slice"]["count"] == 4
    rows = list(csv.DictReader(written["slices.csv"].read_text().splitlines()))
    assert [row["slice"] for row in rows] == ["a", "b", "a", "a"]


def test_one_patient_has_no_interval(tmp_path: Path) -> None:
    folders = cohort(tmp_path / "in", [study(1)])
    found = evaluate(segmenter(), folders)
    figure = segmentation_scores(found)["ET"]["dice"]
    assert math.isnan(figure.low)
    assert figure.percent() == "100.0"
    write_evaluation(found, tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert summary["regions"]["ET"]["dice"]["low_95"] is None


def test_only_the_named_cases_are_taken(tmp_path: Path) -> None:
    cohort(tmp_path, [study(n) for n in range(4)])
    names = {"BraTS2021_00002": "p", "BraTS2021_00000": "p"}
    assert [folder.name for folder in cases_of(tmp_path, names)] == list(names)
    assert len(list(cases_of(tmp_path, None))) == 4
    with pytest.raises(CaseError, match="case X of the split does not exist"):
        list(cases_of(tmp_path, {"X": "p"}))


def test_cases_that_share_a_name_are_refused_and_not_dropped(tmp_path: Path) -> None:
    for patient in ("P1", "P2"):
        written = write_case(study(1, name="baseline"), tmp_path / patient, "plain")
        assert written.name == "baseline"
    with pytest.raises(CaseError, match="have the same case name baseline"):
        list(cases_of(tmp_path, None))


def test_folders_of_bids_go_by_the_names_of_their_files(tmp_path: Path) -> None:
    """Every folder there is called anat, and every session is of the same patient."""
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


def test_regions_that_a_network_cannot_tell_are_not_scored(tmp_path: Path) -> None:
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
    """Answers with what is no number, as a network does that has diverged."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * math.nan


@pytest.mark.parametrize("flips", [False, True])
def test_answers_that_are_no_numbers_are_not_scored(tmp_path: Path, flips: bool) -> None:
    folders = cohort(tmp_path, [study(n) for n in range(2)])
    with pytest.raises(ModelError, match=r"NaN|finite"):
        evaluate(segmenter(Void()), folders, Settings(flips=flips))


def test_grades_from_a_network_of_no_numbers_are_not_scored(tmp_path: Path) -> None:
    void = grader()
    with torch.no_grad():
        void.network.get_parameter("weight").fill_(math.nan)
    folders = cohort(tmp_path, [study(0, layout="brats2019", grade="HGG")])
    with pytest.raises(ModelError, match=r"NaN|finite"):
        evaluate(void, folders)


def test_grades_that_are_no_numbers_are_refused_in_words() -> None:
    nothing = [[math.nan, math.nan]]
    with pytest.raises(ModelError, match="NaN"):
        grading_scores(graded([("p", 1, nothing), ("q", 0, [[0.9, 0.1]])]))


def right(patients: list[str], slices: int = 1) -> Evaluation:
    """Return answers that are all right, high and low grade by turns."""
    rows = [[[0.9, 0.1]] * slices, [[0.1, 0.9]] * slices]
    return graded([(patient, n % 2, rows[n % 2]) for n, patient in enumerate(patients)])


def wilsons(hits: int, count: int) -> tuple[float, float]:
    found = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return found.low, found.high


def ends(figure: Estimate) -> tuple[float, float]:
    return figure.low, figure.high


def test_all_right_is_not_sure_of_itself() -> None:
    found = right([f"p{n}" for n in range(10)], slices=8)
    per_case, per_slice = grading_scores(found)
    for page in (per_case, per_slice):
        assert ends(page.accuracy) == pytest.approx(wilsons(10, 10), abs=1e-6)
        assert ends(page.sensitivity["HGG"]) == pytest.approx(wilsons(5, 5), abs=1e-6)
        assert ends(page.specificity["HGG"]) == pytest.approx(wilsons(5, 5), abs=1e-6)
        for figure in (page.balanced_accuracy, page.roc_auc["HGG"], page.roc_auc["LGG"]):
            assert figure.value == 1
            assert all(map(math.isnan, ends(figure))), "no draw differs: nothing is known"
    assert "1.000 (" not in markdown(found)
    # The last patient came twice, and is no more patients for that.
    twice, _ = grading_scores(right([f"p{min(n, 8)}" for n in range(10)]))
    assert ends(twice.accuracy) == pytest.approx(wilsons(9, 9), abs=1e-6)


def test_balanced_accuracy_is_of_all_classes_in_every_draw() -> None:
    """Always the same answer: one half, whoever is drawn."""
    always = [(f"p{n}", int(n > 0), [[0.1, 0.9]]) for n in range(10)]
    balanced = grading_scores(graded(always))[0].balanced_accuracy
    assert balanced.value == 0.5
    assert all(map(math.isnan, ends(balanced)))
    # One of ten high grades wrong: a draw's figure is (1 + its share of right ones) / 2.
    rows = [(f"p{n}", int(n > 0), [[0.9, 0.1]] if n < 2 else [[0.1, 0.9]]) for n in range(11)]
    balanced = grading_scores(graded(rows))[0].balanced_accuracy
    assert balanced.value == pytest.approx((1 + 9 / 10) / 2)
    assert 0.75 < balanced.low < balanced.value < balanced.high == 1


def test_one_class_alone_has_no_balanced_accuracy() -> None:
    only = grading_scores(graded([(f"p{n}", 1, [[0.1, 0.9]]) for n in range(10)]))[0]
    assert only.balanced_accuracy.percent() == only.roc_auc["HGG"].plain() == "not defined"


def test_intervals_of_few_patients_carry_a_warning(tmp_path: Path) -> None:
    few, many = right([f"p{n}" for n in range(6)]), right([f"p{n}" for n in range(24)])
    assert cautions(many) == []
    (note,) = cautions(few)
    assert note.startswith("only 6 patients; ")
    assert "too narrow" in note
    assert note[1:] in markdown(few)
    written = {path.name: path for path in write_evaluation(few, tmp_path)}
    assert json.loads(written["evaluation.json"].read_text())["cautions"] == [note]
    mixed = [(f"p{n}", int(n > 2), [[0.4, 0.6]]) for n in range(24)]
    (note,) = cautions(graded(mixed))
    assert note.startswith("LGG: only 3 patients; ")


def segmented(overlaps: list[tuple[str, Overlap]]) -> Evaluation:
    return Evaluation(
        {"name": "n", "weights_sha256": "0" * 64}, "segmentation", (), "brats2021", Settings(),
        segmented=tuple(
            SegmentedCase(f"C{n}", patient, {"ET": overlap})
            for n, (patient, overlap) in enumerate(overlaps)
        ),
    )  # fmt: skip


def test_cases_without_a_region_do_not_hide_how_it_is_found(tmp_path: Path) -> None:
    """Dice is 1 where nothing was to be found and was: six of ten would make 0.7 of 0.25."""
    there = [0.1, 0.2, 0.3, 0.4]
    found = segmented(
        [(f"p{n}", Overlap(score, 10.0 + n, 1.0, 2.0)) for n, score in enumerate(there)]
        + [(f"q{n}", Overlap(1.0, 0.0, 0.0, 0.0)) for n in range(6)]
    )
    figures = segmentation_scores(found)["ET"]
    assert figures["dice"].value == pytest.approx(0.7)
    assert figures["dice_where_present"].value == pytest.approx(0.25)
    assert 0.1 <= figures["dice_where_present"].low < 0.25 < figures["dice_where_present"].high
    assert figures["hausdorff95_where_present_mm"].value == pytest.approx(11.5)
    page = markdown(found)
    assert "| ET | 4 of 10 | 25.0 (" in page
    assert "empty in both truth and prediction scores Dice 1" in page
    (note,) = cautions(found)
    assert note.startswith("ET: only 4 patients; ")
    written = {path.name: path for path in write_evaluation(found, tmp_path)}
    summary = json.loads(written["evaluation.json"].read_text())["regions"]["ET"]
    assert summary["cases_with_region"] == 4
    assert summary["dice_where_present"]["value"] == pytest.approx(0.25)
    table = list(csv.DictReader(written["tables.csv"].read_text().splitlines()))
    values = {row["measure"]: row["value"] for row in table}
    assert values["cases_with_region"] == "4"
    assert float(values["dice_where_present"]) == pytest.approx(0.25)


def test_a_region_that_no_case_has_is_not_measured() -> None:
    found = segmented([(f"p{n}", Overlap(1.0, 0.0, 0.0, 0.0)) for n in range(12)])
    assert segmentation_scores(found)["ET"]["dice_where_present"].percent() == "not defined"
    assert "| ET | 0 of 12 | not defined |" in markdown(found)


def test_results_that_are_open_already_are_written_to(tmp_path: Path) -> None:
    """So that a folder nobody may write to is found before hours of measuring."""
    found = right(["p", "q", "r"])
    with Results(tmp_path / "out") as results:
        write_evaluation(found, results)
        assert not (tmp_path / "out").exists(), "moved there in the end, as one"
    alone = write_evaluation(found, tmp_path / "alone")
    assert [path.name for path in results.written] == [path.name for path in alone]
    assert all(path.parent == tmp_path / "out" and path.is_file() for path in results.written)
