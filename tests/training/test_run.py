"""Trainings from configuration to checkpoint, on small synthetic cases."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from neuroxai.core.errors import NeuroXAIError, OutputError, TrainingError
from neuroxai.data.brats import write_case
from neuroxai.data.case import Case
from neuroxai.data.layouts import LAYOUTS
from neuroxai.models import ARCHITECTURES, load_model
from neuroxai.training import train
from neuroxai.training.config.config import Config
from neuroxai.training.data import cases as cases_module
from neuroxai.workflows.predict import predict
from session_cache import shared_folder

pytest.importorskip("lightning")

SHAPE = (20, 24, 12)


def _not_reached(*_: object, **__: object) -> None:
    pytest.fail("cases were prepared")


def _study(seed: int) -> Case:
    """A bright ball in a gray brain; in high grades its core is brighter on T1ce."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    center = rng.uniform((7, 8, 4), (13, 16, 8))
    far = np.sqrt(sum((axis - middle) ** 2 for axis, middle in zip(axes, center, strict=True)))
    brain = np.zeros(SHAPE, bool)
    brain[1:-1, 1:-1, 1:-1] = True
    truth = np.select([far < 1.5, far < 3, far < 4.5], [1, 3, 2], 0).astype(np.uint8) * brain
    high = bool(seed % 2)
    noise = rng.normal(0, 4, (2, *SHAPE))
    flair = 60 + 60 * (truth == 2) + 25 * (truth == 1) + noise[0]
    t1ce = 60 + (90 if high else 35) * (truth == 3) - 30 * (truth == 1) + noise[1]
    volumes = {
        "FLAIR": np.where(brain, flair, 0).astype(np.float32),
        "T1ce": np.where(brain, t1ce, 0).astype(np.float32),
    }
    return Case(
        name=f"case-{seed}",
        volumes=volumes,
        affine=np.diag([-1.0, -1.0, 1.0, 1.0]),
        layout=LAYOUTS["brats2021"],
        truth=truth,
        grade="HGG" if high else "LGG",
    )


@pytest.fixture(autouse=True)
def _studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases_module, "_case", lambda job: _study(job.phantom["seed"]))


def _config(tmp_path: Path, **changes: Any) -> Config:
    table: dict[str, Any] = {
        "name": "small",
        "task": "segmentation",
        "architecture": "deepseg",
        "arguments": {"in_channels": 2, "out_channels": 4, "filters": 6, "depth": 2, "dropout": 0},
        "modalities": ["FLAIR", "T1ce"],
        "preprocessing": {"size": [20, 24, 12], "divisor": 4},
        "data": {"phantom": {"train": [0, 8], "test": [50, 53], "spacings": [1.0]}},
        "patch": [16, 16, 8],
        "batch": 4,
        "max_steps": 80,
        "learning_rate": 0.01,
        "output_dtype": "float16",
        "augmentation": {"tone": 0.1, "gamma": [0.9, 1.1], "noise": 0.02, "blur": 0, "bias": 0},
        "save_every": 40,
        "workers": 1,
        "device": "cpu",
        "cache": str(tmp_path / "cache"),
    }
    return Config.from_dict(table | changes)


def test_a_segmenter_learns_and_its_card_has_its_scores(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    folder = train(_config(tmp_path, max_steps=240), tmp_path / "run")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert folder == tmp_path / "run" / "checkpoint"
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["checkpoint", "config.json", "log.csv", "metrics.csv"]

    model = load_model(folder)
    card = model.card
    assert card.weights_dtype == "float16"
    assert card.modalities == ("FLAIR", "T1ce")
    assert set(card.regions) == {"WT", "TC", "ET"}
    assert card.metrics["count"] == 3
    assert card.metrics["dice"]["WT"] > 0.8, card.metrics
    assert card.metrics["dice"]["ET"] > 0.5, card.metrics
    # Predicted again from the saved file, on the patients' grids.
    again = [predict(model, _study(seed)).dice() for seed in (50, 51, 52)]
    for region, value in card.metrics["dice"].items():
        assert value == pytest.approx(np.mean([dice[region] for dice in again]), abs=6e-3)
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines()))
    assert [row["case"] for row in rows] == ["case-50", "case-51", "case-52"]
    mean = np.mean([float(row["WT"]) for row in rows])
    assert mean == pytest.approx(card.metrics["dice"]["WT"], abs=1e-3)
    assert str(tmp_path) not in (folder / "card.json").read_text()
    assert card.training["data"]["train_seeds"] == [0, 8]
    assert card.training["steps"] == 240


class _Tiny(nn.Module):
    """A small classifier."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.dense = nn.Linear(8, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.dense(self.norm(self.conv(x)).relu().amax((2, 3)))
        return logits


def _grading(tmp_path: Path, **changes: Any) -> Config:
    grading = {
        "task": "classification",
        "architecture": "resnet50",
        "arguments": {"in_channels": 2, "out_channels": 2},
        "classes": ["LGG", "HGG"],
        "preprocessing": {"size": [20, 24], "plane": "axial", "intensity": "zscore"},
        "slices_per_case": 3,
        "batch": 8,
        "max_steps": 150,
        "learning_rate": 0.02,
        "augmentation": {
            "zoom": [1, 1],
            "tone": 0,
            "gamma": [1, 1],
            "contrast": [1, 1],
            "brightness": 0,
            "bias": 0,
            "noise": 0,
            "blur": 0,
            "thick_slices": 0,
            "ceiling": [1, 1],
        },
    }
    source = {"phantom": {"train": [0, 12], "test": [50, 60], "spacings": [1.0]}}
    return _config(tmp_path, **(grading | {"data": source} | changes))


def test_a_classifier_learns_and_its_card_has_its_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHITECTURES, "resnet50", _Tiny)
    source = {"phantom": {"train": [0, 40], "test": [50, 60], "spacings": [1.0]}}
    folder = train(_grading(tmp_path, data=source), tmp_path / "run")
    card = load_model(folder).card
    accuracy = card.metrics["accuracy"]
    assert accuracy["count"] == card.metrics["count"] == 10
    assert accuracy["value"] >= 0.9
    assert card.metrics["slice_accuracy"]["value"] >= 0.85
    low, high = accuracy["wilson_95"]
    assert low < accuracy["value"] <= high
    assert card.metrics["slice_accuracy"]["count"] == 30
    assert card.regions == {}
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines()))
    assert sum(row["truth"] == row["largest_slice"] for row in rows) == accuracy["hits"]


def test_a_resnet50_can_be_trained(tmp_path: Path) -> None:
    settings = _grading(
        tmp_path,
        max_steps=2,
        batch=2,
        preprocessing={"size": [40, 48], "plane": "axial"},
        data={"phantom": {"train": [0, 2], "test": [50, 51]}},
    )
    model = load_model(train(settings, tmp_path / "run"))
    assert type(model.network).__name__ == "ResNet50"
    assert (model.folder / "model.safetensors").stat().st_size < 56e6


def test_a_finished_training_is_returned_and_not_overwritten(tmp_path: Path) -> None:
    settings = _config(tmp_path, max_steps=2)
    folder = train(settings, tmp_path / "run")
    payload = (folder / "model.safetensors").read_bytes()
    stages: list[str] = []
    assert train(
        settings, tmp_path / "run", resume=True, progress=lambda *a: stages.append(a[0])
    ) == (folder)
    assert not stages
    with pytest.raises(TrainingError, match="contains a training; resume it"):
        train(settings, tmp_path / "run")
    with pytest.raises(TrainingError, match="started with other settings"):
        train(_config(tmp_path, max_steps=3), tmp_path / "run", resume=True)
    assert (folder / "model.safetensors").read_bytes() == payload


def test_a_resumed_training_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _config(tmp_path, max_steps=6, save_every=2, average=0.5)
    whole = train(settings, tmp_path / "whole")
    from neuroxai.training.data.patches import PatchBatches

    real = PatchBatches.batch

    def broken(self: PatchBatches, number: int) -> tuple[Tensor, Tensor]:
        if number == 5:
            raise KeyboardInterrupt
        return real(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(PatchBatches, "batch", broken)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(settings, tmp_path / "cut")
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == [
        "config.json",
        "last.ckpt",
        "log.csv",
    ]
    resumed = train(settings, tmp_path / "cut", resume=True)
    for name in ("model.safetensors",):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()


LINE = {"size": [20, 24], "plane": "axial"}


@pytest.mark.parametrize(
    ("grading", "change", "words"),
    [
        (
            False,
            {"arguments": {"in_channels": 2, "out_channels": 2, "filters": 2, "depth": 2}},
            "out_channels is 2, expected 4, one for each of background, NCR, ED, ET",
        ),
        (False, {"arguments": {"in_channels": 2, "filters": 2}, "classes": ["background", "ET"]},
         "out_channels is 4, expected 2"),
        (False, {"arguments": {"in_channels": 3}},
         "in_channels is 3, expected 2, one for each of FLAIR, T1ce"),
        (False, {"arguments": {}}, r"expected \(B, 4, X, Y, Z\)"),
        (False, {"arguments": {"in_channels": 2, "spatial_dims": 2}}, "cannot process batches"),
        (False, {"arguments": {"in_channels": 2, "foo": 1}}, "cannot be built"),
        (False, {"architecture": "resnet50"}, "cannot be"),
        (False, {"architecture": "foo"}, "unknown architecture 'foo'"),
        (False, {"preprocessing": LINE}, "preprocessing.plane is 'axial', expected null"),
        (False, {"preprocessing": {"size": [20, 24, 10], "divisor": 4}}, "preprocessing: size is"),
        (False, {"initial": "nowhere"}, "nowhere"),
        (True, {"classes": ["LGG", "HGG", "none"], "arguments": {"in_channels": 2}},
         "classes is .* expected LGG and HGG"),
        (True, {"arguments": {"in_channels": 2, "out_channels": 3}}, "out_channels is 3"),
        (True, {"architecture": "deepseg", "arguments": {"in_channels": 2, "spatial_dims": 2}},
         "has an output of shape .* expected .* a classifier"),
        (True, {"preprocessing": {"size": [20, 24, 12], "divisor": 4}},
         "preprocessing.plane is None, expected 'axial'"),
        (True, {"auxiliary_loss": 0.5, "auxiliary_loss_layers": ["layer9"]},
         "auxiliary_loss_layers: no layer 'layer9'"),
        (True, {"auxiliary_loss": 0.5, "auxiliary_loss_layers": ["dense1"]},
         "auxiliary_loss_layers: the output of dense1 has shape"),
        (True, {"pretrained": "nowhere.safetensors"}, "nowhere"),
    ],
)  # fmt: skip
def test_a_mismatched_network_raises_an_error_before_cases_are_prepared(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    grading: bool,
    change: dict[str, Any],
    words: str,
) -> None:
    monkeypatch.setattr("neuroxai.training.run.prepare_cases", _not_reached)
    with pytest.raises(NeuroXAIError, match=words) as caught:
        train((_grading if grading else _config)(tmp_path, **change), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


SMALL = {"in_channels": 2, "out_channels": 4, "filters": 2, "depth": 2}


@pytest.fixture
def trained() -> Path:
    """Return the checkpoint of a small segmenter, trained once for all tests."""

    def build(folder: Path) -> None:
        train(_config(folder, arguments=SMALL, max_steps=3), folder / "run")

    return shared_folder("trained-segmenter", build) / "run" / "checkpoint"


def test_unknown_frozen_layers_raise_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Path
) -> None:
    monkeypatch.setattr("neuroxai.training.run.prepare_cases", _not_reached)
    settings = {"initial": str(trained), "frozen_layers": ["decoder", "layer9"], "frozen_epochs": 1}
    with pytest.raises(TrainingError, match="frozen_layers: no layer begins with 'layer9'"):
        train(_config(tmp_path, arguments=SMALL, **settings), tmp_path / "second")


def test_a_configuration_built_in_python_is_validated(tmp_path: Path) -> None:
    config = _config(tmp_path)
    with pytest.raises(TrainingError, match="max_minutes is nan, expected a number above 0"):
        config.replace(max_minutes=float("nan"))
    settings = {name: getattr(config, name) for name in Config.model_fields}
    with pytest.raises(ValidationError, match="max_minutes"):
        Config(**{**settings, "max_minutes": float("nan")})
    with pytest.raises(ValidationError, match="frozen"):
        config.max_minutes = float("nan")


def test_a_folder_with_other_files_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="does not contain a training"):
        train(_config(tmp_path), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_training_that_cannot_start_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(job: object) -> Case:
        raise TrainingError("unreadable")

    monkeypatch.setattr(cases_module, "_case", fail)
    with pytest.raises(TrainingError, match="unreadable"):
        train(_config(tmp_path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_initial_weights_may_come_from_a_network_with_other_dropout(
    tmp_path: Path, trained: Path
) -> None:
    settings = {"initial": str(trained), "max_steps": 1, "learning_rate": 1e-12, "seed": 5}
    other = {**SMALL, "dropout": 0.25}
    second = train(_config(tmp_path, arguments=other, **settings), tmp_path / "second")
    start, end = (dict(load_model(each).network.named_parameters()) for each in (trained, second))
    assert all(torch.allclose(end[name], start[name], atol=1e-3) for name in start)
    card = load_model(second).card
    assert card.arguments["dropout"] == 0.25
    assert card.training["initial"]["training"]["steps"] == 3
    wider = {**SMALL, "filters": 3}
    with pytest.raises(TrainingError, match="is another network"):
        train(_config(tmp_path, arguments=wider, **settings), tmp_path / "third")


def test_a_training_without_test_cases_has_no_metrics(tmp_path: Path) -> None:
    source = {"phantom": {"train": [0, 2], "test": [9, 9]}}
    folder = train(_config(tmp_path, max_steps=1, data=source), tmp_path / "run")
    assert json.loads((folder / "card.json").read_text())["metrics"] == {"count": 0}


def test_the_logit_bias_is_added_before_metrics_are_measured(tmp_path: Path) -> None:
    """The card contains the bias; all other weights equal those of a training without it."""
    data = {"phantom": {"train": [0, 6], "test": [50, 52], "validation": [60, 63]}}
    few = {"data": data, "max_steps": 12, "output_dtype": "float32"}
    plain = load_model(train(_config(tmp_path, **few), tmp_path / "plain"))
    folder = train(_config(tmp_path, **few, logit_bias=True), tmp_path / "biased")
    biased = load_model(folder)
    bias = biased.card.training["logit_bias"]
    assert list(bias) == ["background", "NCR", "ED", "ET"]
    assert any(bias.values())
    assert biased.card.training["data"]["validation_seeds"] == [60, 63]
    assert "logit_bias" not in plain.card.training
    before, after = plain.network.state_dict(), biased.network.state_dict()
    for name in before:
        moved = torch.tensor(list(bias.values())) if name == "output.bias" else 0
        torch.testing.assert_close(after[name], before[name] + moved)
    rows = list(csv.DictReader((tmp_path / "biased" / "metrics.csv").read_text().splitlines()))
    measured = np.mean([predict(biased, _study(seed)).dice()["WT"] for seed in (50, 51)])
    assert np.mean([float(row["WT"]) for row in rows]) == pytest.approx(measured, abs=0.01)


def test_a_logit_bias_without_validation_cases_raises_an_error(tmp_path: Path) -> None:
    data = {"phantom": {"train": [0, 6], "test": [50, 52], "validation": [60, 60]}}
    with pytest.raises(TrainingError, match="logit_bias is set, but there is no validation case"):
        train(_config(tmp_path, data=data, logit_bias=True), tmp_path / "run")
    assert not list((tmp_path / "run").glob("log.csv"))


def test_a_changed_cohort_cannot_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another patient, every n-th includes patients that were trained on."""
    monkeypatch.undo()
    for number in range(0, 20, 2):
        study = dataclasses.replace(_study(number), name=f"BraTS2021_{number:05}")
        write_case(study, tmp_path / "cohort")
    source = {"cohort": {"folder": str(tmp_path / "cohort")}}
    settings = _config(tmp_path, data=source, max_steps=6, save_every=2)

    def stop(stage: str, done: float, total: float) -> None:
        if stage == "Training" and done >= 4:
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(settings, tmp_path / "run", progress=stop)
    before = (tmp_path / "run" / "split.csv").read_bytes()
    more = write_case(dataclasses.replace(_study(5), name="BraTS2021_00005"), tmp_path / "cohort")
    with pytest.raises(TrainingError, match=r"split of \d+ cases has changed"):
        train(settings, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "split.csv").read_bytes() == before
    shutil.rmtree(more)
    assert train(settings, tmp_path / "run", resume=True).is_dir()
    assert (tmp_path / "run" / "split.csv").read_bytes() == before
