"""Metrics of the model card: Dice on the patient's grid, accuracy and its intervals."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from neuroxai.accuracy.segmentation import dice
from neuroxai.data.case import Case
from neuroxai.data.layouts import Layout
from neuroxai.demo.sections import accuracy
from neuroxai.models import Card, Model
from neuroxai.training.card.evaluate import (
    DiceScores,
    evaluate_slices,
    evaluate_volumes,
)
from neuroxai.training.card.logit_bias import _candidates, _mean_dice
from neuroxai.training.card.metrics import measure
from neuroxai.training.config.config import Config
from neuroxai.training.data import cases
from neuroxai.training.data.cases import PreparedCase
from neuroxai.workflows.predict import predict

CARD = Card(
    name="oracle",
    architecture="deepseg",
    arguments={},
    task="segmentation",
    modalities=("FLAIR",),
    classes=("background", "NCR", "ED", "ET"),
    regions={"WT": ("NCR", "ED", "ET"), "TC": ("NCR", "ET"), "ET": ("ET",)},
    activation="softmax",
    preprocessing={
        "modalities": ["FLAIR"],
        "intensity": "none",
        "size": [16, 16, 16],
        "divisor": 4,
    },
)


class _ByGrayValue(nn.Module):
    """Classify by intensity: the logit of class k is largest at 10 (k + 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([-((x - 10 * (k + 1)) ** 2) for k in range(4)], dim=1)


def _model(card: Card = CARD) -> Model:
    return Model(network=_ByGrayValue(), card=card, folder=Path(), weights_sha256="")


def test_means_by_spacing() -> None:
    scores = DiceScores((("a", 1.0, {"WT": 0.5}), ("b", 2.0, {"WT": 1.0}), ("c", 2.0, {"WT": 0.0})))
    assert scores.count == 3
    assert scores.mean() == {"WT": 0.5}
    assert scores.mean(spacing=1.0) == {"WT": 0.5}
    assert scores.mean(spacing=3.0) == {}


def test_predictions_are_scored_on_the_patients_grid() -> None:
    """The patient's grid is larger than the network's; cropped truth counts as missed."""
    rng = np.random.default_rng(1)
    truth = np.zeros((20, 14, 18), np.uint8)
    truth[6:12, 4:9, 5:12] = rng.integers(1, 4, (6, 5, 7))
    truth[0, 7, 8] = 3
    wrong = truth.copy()
    wrong[8, 4:9, 5:12] = 2
    layout = Layout("brats2021", {"NCR": 1, "ED": 2, "ET": 4}, {"FLAIR": "flair"})
    case = Case(
        name="c",
        volumes={"FLAIR": (10.0 * (wrong + 1)).astype(np.float32)},
        affine=np.diag([-1.0, -1, 1, 1]),
        layout=layout,
        truth=truth,
    )
    kept = wrong.copy()
    kept[[0, 1, -2, -1]] = 0
    kept[:, :, [0, -1]] = 0
    scores = predict(_model(), case).dice()
    for region, classes in {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}.items():
        assert scores[region] == pytest.approx(
            dice(np.isin(kept, classes), np.isin(truth, classes))
        )
        assert scores[region] < 1


def test_prepared_volumes_have_the_dice_of_the_patients_grid() -> None:
    truth = np.zeros((6, 5, 4), np.uint8)
    truth[1:4, 1:4, 1:3] = 2
    truth[2, 2, 1] = 3
    image = (10.0 * (truth + 1)).astype(np.float16)[None]
    image[0, 1, 1, 1] = 10
    case = PreparedCase("c", "c", image, truth, (2, 0, 1), (9, 5, 6), (900, 0, 17, 5, 0), 1.5, 3.0)
    ((name, spacing, scores),) = evaluate_volumes(_model(), [case])
    assert (name, spacing) == ("c", 1.5)
    # 18 voxels of WT remain, one is missed; cropping removed four of ET.
    assert scores == {"WT": 2 * 17 / (17 + 22), "TC": 2 / (1 + 5), "ET": 2 / (1 + 5)}


def test_resampled_volumes_have_the_dice_of_the_patients_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dice, and the volume of enhancing tumor, in the patient's voxels."""
    truth = np.zeros((20, 14, 18), np.uint8)
    truth[4:15, 3:12, 3:14] = 2
    truth[6:13, 4:11, 4:12] = 1
    truth[7:12, 5:10, 5:11] = 3
    wrong = np.roll(truth, 1, axis=2)
    brain = np.zeros(truth.shape, bool)
    brain[2:18, 2:13, 2:15] = True
    case = Case(
        name="c",
        volumes={"FLAIR": np.where(brain, 10.0 * (wrong + 1), 0).astype(np.float32)},
        affine=np.diag([-1.0, -1.2, 1.5, 1]),
        layout=Layout("brats2021", {"NCR": 1, "ED": 2, "ET": 4}, {"FLAIR": "flair"}),
        truth=truth,
    )
    recipe = {
        "modalities": ["FLAIR"],
        "intensity": "none",
        "size": None,
        "divisor": 1,
        "voxel_mm": [2.0, 2.0, 2.0],
        "resampling": "nnunet",
        "crop_to_brain": True,
    }
    table = {
        "name": "n",
        "task": "segmentation",
        "architecture": "deepseg",
        "modalities": ["FLAIR"],
        "preprocessing": {key: recipe[key] for key in recipe if key != "modalities"},
        "data": {"phantom": {"train": [0, 1], "test": [1, 2]}},
        "max_steps": 1,
        "workers": 1,
        "cache": str(tmp_path),
    }
    monkeypatch.setattr(cases, "_case", lambda job: case)
    for _ in ("made", "read again"):
        (prepared,) = cases.prepare_cases(Config.from_dict(table)).test
    assert prepared.truth.shape == (8, 7, 10)
    enhancing = predict(_model(CARD.replace(preprocessing=recipe)), case)
    volume = 1000 * enhancing.volumes_ml()["ET"]
    for least in (0.0, volume - 1, volume + 1):
        rule = {"smallest_enhancement_mm3": least} if least else {}
        card = CARD.replace(preprocessing=recipe, postprocessing=rule)
        ((_, _, scores),) = evaluate_volumes(_model(card), [prepared])
        # The prepared image is kept as float16.
        assert scores == pytest.approx(predict(_model(card), case).dice(), abs=5e-3)
        assert (scores["ET"] > 0) == (least < volume)


class _Everywhere(nn.Module):
    """Predict one class for bright voxels and one for dark ones, which include the padding."""

    def __init__(self, bright: int, dark: int) -> None:
        super().__init__()
        self.classes = bright, dark

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.zeros(len(x), 4, *x.shape[2:])
        for channel, where in zip(self.classes, (x[:, 0] > 0, x[:, 0] <= 0), strict=True):
            logits[:, channel] += where
        return logits


@pytest.mark.parametrize(("bright", "dark", "least"), [(2, 2, 0.0), (2, 3, 0.0), (0, 3, 1000.0)])
def test_predictions_in_the_padding_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bright: int, dark: int, least: float
) -> None:
    """One axis is cropped and two are padded unevenly; Dice and the volume of ET are unaffected."""
    truth = np.zeros((20, 13, 17), np.uint8)
    truth[4:15, 3:12, 3:14] = 2
    truth[7:12, 5:10, 5:11] = 3
    shown = 1.0 + truth
    shown[9:11, 6:9, 7:9] = 0
    case = Case(
        name="c",
        volumes={"FLAIR": (shown * 10).astype(np.float32)},
        affine=np.diag([-1.0, -1, 1, 1]),
        layout=Layout("brats2021", {"NCR": 1, "ED": 2, "ET": 4}, {"FLAIR": "flair"}),
        truth=truth,
    )
    recipe = {"intensity": "none", "size": [16, 24, 24], "divisor": 4}
    table = {
        "name": "n",
        "task": "segmentation",
        "architecture": "deepseg",
        "modalities": ["FLAIR"],
        "preprocessing": recipe,
        "data": {"phantom": {"train": [0, 1], "test": [1, 2]}},
        "max_steps": 1,
        "workers": 1,
        "smallest_enhancement_mm3": least,
        "cache": str(tmp_path),
    }
    monkeypatch.setattr(cases, "_case", lambda job: case)
    config = Config.from_dict(table)
    (prepared,) = cases.prepare_cases(config).test
    assert prepared.shape == (16, 16, 20)
    assert prepared.unpadded == ((0, 16), (1, 14), (1, 18))
    card = CARD.replace(
        preprocessing={"modalities": ["FLAIR"], **recipe},
        postprocessing={"smallest_enhancement_mm3": least} if least else {},
    )
    model = Model(_Everywhere(bright, dark), card, Path(), "")
    expected = predict(model, case).dice()
    ((_, _, scores),) = evaluate_volumes(model, [prepared])
    assert scores == pytest.approx(expected)
    if bright == dark:
        tumor = int((truth > 0).sum())
        assert scores["WT"] == pytest.approx(2 * tumor / (16 * 13 * 17 + tumor))
    candidates = _candidates(model.network, prepared, torch.device("cpu"))
    found = _mean_dice([candidates], np.zeros(4, np.float32), config)
    assert found == pytest.approx(np.mean(list(expected.values())))


@pytest.mark.parametrize(("least", "et"), [(2.9, 2 / 6), (3.1, 0.0)])
def test_enhancing_tumor_below_the_cards_minimum_is_relabeled(least: float, et: float) -> None:
    truth = np.zeros((6, 5, 4), np.uint8)
    truth[2, 2, 1] = 3
    image = (10.0 * (truth + 1)).astype(np.float16)[None]
    case = PreparedCase("c", "c", image, truth, (2, 0, 1), (9, 5, 6), (900, 0, 0, 5, 0), 1.5, 3.0)
    model = _model()
    card = CARD.replace(postprocessing={"smallest_enhancement_mm3": least})
    model = dataclasses.replace(model, card=card)
    ((_, _, scores),) = evaluate_volumes(model, [case])
    assert scores == {"WT": 2 / 6, "TC": 2 / 6, "ET": et}


def test_slices_are_classified_and_empty_cases_skipped() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            bright = x.mean((1, 2, 3))
            return torch.stack([0.5 - bright, bright - 0.5], dim=1)

    images = np.stack([np.full((1, 4, 5), value, np.float16) for value in (0.9, 0.1, 0.8)])
    truth = np.ones((3, 4, 5), np.uint8)
    full = PreparedCase("a", "a", images, truth, (0, 0), (4, 5), (), 2.0, 4.0, grade=1)
    none = PreparedCase("b", "b", images[:0], truth[:0], (0, 0), (4, 5), (), 2.0, 4.0)
    model = Model(network=Mean(), card=CARD, folder=Path(), weights_sha256="")
    assert list(evaluate_slices(model, [none, full])) == [("a", 1, [1, 0, 1])]
    assert torch.is_grad_enabled()


class _Bright(nn.Module):
    """Predict high grade for bright slices."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x.mean((1, 2, 3))
        return torch.stack([0.5 - bright, bright - 0.5], dim=1)


def _graded(name: str, patient: str, right: list[bool]) -> PreparedCase:
    """High-grade case with the given slices predicted correctly."""
    values = np.array(right, np.float16)[:, None, None, None]
    images = np.broadcast_to(values, (len(right), 1, 4, 5))
    truth = np.ones((len(right), 4, 5), np.uint8)
    return PreparedCase(name, patient, images, truth, (0, 0), (4, 5), (), 2.0, 4.0, grade=1)


def _metrics(cases: list[PreparedCase], tmp_path: Path) -> dict[str, Any]:
    config = Config.from_dict(
        {
            "name": "n",
            "task": "classification",
            "architecture": "resnet50",
            "modalities": ["FLAIR"],
            "preprocessing": {"plane": "axial", "size": [4, 5]},
            "data": {"phantom": {"train": [0, 1], "test": [1, 2]}},
            "max_steps": 1,
        }
    )
    model = Model(network=_Bright(), card=CARD, folder=Path(), weights_sha256="")
    return measure(model, config, cases, torch.device("cpu"), tmp_path, lambda *_: None)


def test_the_interval_of_slice_accuracy_depends_on_the_number_of_patients(tmp_path: Path) -> None:
    """If all slices of a patient agree, resampled accuracies are binomial over patients."""
    found = _metrics([_graded(f"c{n}", f"p{n}", [n < 9] * 6) for n in range(12)], tmp_path)
    entry = found["slice_accuracy"]
    assert (entry["value"], entry["hits"], entry["count"]) == (0.75, 54, 72)
    assert entry["patients"] == 12
    assert "wilson_95" not in entry
    expected = stats.binom.ppf([0.025, 0.975], 12, 0.75) / 12
    assert entry["over_patients_95"] == pytest.approx(list(expected), abs=1e-4)
    # One case per patient: Wilson's interval applies.
    wilsons = stats.binomtest(9, 12).proportion_ci(0.95, method="wilson")
    assert found["accuracy"]["wilson_95"] == pytest.approx([wilsons.low, wilsons.high], abs=1e-4)


def test_visits_of_a_patient_are_resampled_together(tmp_path: Path) -> None:
    visits = [(f"c{n}-{visit}", f"p{n}", [n < 9]) for n in range(12) for visit in range(3)]
    entry = _metrics([_graded(*visit) for visit in visits], tmp_path)["accuracy"]
    assert (entry["hits"], entry["count"], entry["patients"]) == (27, 36, 12)
    expected = stats.binom.ppf([0.025, 0.975], 12, 0.75) / 12
    assert entry["over_patients_95"] == pytest.approx(list(expected), abs=1e-4)
    assert "wilson_95" not in entry


def test_the_demo_shows_the_interval_over_patients(tmp_path: Path) -> None:
    def shown(metrics: dict[str, Any]) -> str:
        return accuracy(_model(CARD.replace(metrics=metrics)))

    found = _metrics([_graded(f"c{n}", f"p{n}", [n < 9] * 6) for n in range(12)], tmp_path)
    assert shown(found) == (
        "accuracy 75.0% of 12 held-out cases (95 % interval 46.8% to 91.1%), 75.0% of 72 held-out "
        "slices (95 % interval 50.0% to 100.0%)"
    )
    entry = {"value": 0.75, "hits": 54, "count": 72, "wilson_95": [0.64, 0.84]}
    # Older cards took slices for patients; the figure holds, its interval does not.
    older = {"accuracy": entry | {"count": 12, "wilson_95": [0.46, 0.91]}, "slice_accuracy": entry}
    assert shown(older) == (
        "accuracy 75.0% of 12 held-out cases (95 % interval 46.0% to 91.0%), 75.0% of 72 held-out "
        "slices"
    )
    assert shown({}) == "accuracy not measured"
