"""The paper's two recipes, from a cohort on disk to evaluated and explained networks.

On the command line with the included configurations; the cohorts are phantoms in the layouts of
BraTS 2019 and 2021, and only sizes are overridden.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from command_line import here, said
from neuroxai.core.errors import TrainingError
from neuroxai.data.phantom import cohort
from neuroxai.models.card import read_card
from neuroxai.models.resnet import ResNet50
from neuroxai.training.config.config_file import read_config
from neuroxai.training.loop.pretrained import load_pretrained
from session_cache import phantom

pytest.importorskip("lightning")
pytest.importorskip("nilearn")


@pytest.fixture(autouse=True)
def _each_phantom_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort, "make_phantom", phantom)


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def imagenet_weights(path: Path, seed: int = 3) -> dict[str, torch.Tensor]:
    """Write weights with torchvision's names: the backbone, and a head of 1000 classes."""
    torch.manual_seed(seed)
    state = {
        name: tensor.clone() + 0.01
        for name, tensor in ResNet50().state_dict().items()
        if not name.startswith("dense") and tensor.is_floating_point()
    }
    save_file(state | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}, path)
    return state


@pytest.mark.slow
def test_grading_on_brats_2019(tmp_path: Path) -> None:
    cache, cohort, run, out = (tmp_path / name for name in ("cache", "cohort", "run", "out"))
    said(here(
        "phantom", "-n", 10, "--seed", 0, "--spacing", 3, "--layout", "brats2019", "-o", cohort,
        cache=cache,
    ))  # fmt: skip
    start = imagenet_weights(tmp_path / "resnet50.safetensors")
    sizes = ("preprocessing.size=[64,64]", "epochs=2", "batch=8", "frozen_epochs=2")
    others = (f"pretrained={tmp_path / 'resnet50.safetensors'}", "slices_per_case=2", "workers=1")
    settings = [word for setting in (*sizes, *others) for word in ("--set", setting)]
    said(here(
        "train", "--config", "brats2019-grading", "--data", cohort, "-o", run, *settings,
        cache=cache,
    ))  # fmt: skip
    split = rows(run / "split.csv")
    assert {row["site"] for row in split} == {"SYN"}
    held = {row["case"] for row in split if row["part"] == "test"}
    assert 2 <= len(held) <= 3
    assert {row["part"] for row in split} == {"train", "validation", "test"}
    card = read_card(run / "checkpoint" / "card.json")
    assert card.training["initial"]["weights"] == "resnet50.safetensors"
    assert card.training["data"]["validation_cases"] >= 1
    assert len(rows(run / "validation.csv")) == 2
    kept = load_file(run / "checkpoint" / "model.safetensors")
    for name, tensor in start.items():
        assert torch.equal(kept[name].float(), tensor), f"{name} was frozen in both epochs"

    printed = said(here(
        "evaluate", cohort, "--model", run / "checkpoint", "--split", run / "split.csv",
        "--slices", 2, "-o", out, cache=cache,
    ))  # fmt: skip
    assert "not for clinical use" in printed
    measured = rows(out / "cases.csv")
    assert {row["case"] for row in measured} <= held
    page = (out / "evaluation.md").read_text()
    assert "| resnet50-brats2019 | brats2019 | | not measured |" in page
    correct = sum(row["truth"] == row["predicted"] for row in measured)
    summary = json.loads((out / "evaluation.json").read_text())
    assert summary["per"]["case"]["accuracy"]["value"] == pytest.approx(correct / len(measured))

    name = measured[0]["case"]
    (case,) = cohort.glob(f"[!.]*/{name}")
    said(here(
        "explain", case, "--model", run / "checkpoint", "--method", "grad_cam", "-o",
        tmp_path / "maps", cache=cache,
    ))  # fmt: skip
    (written,) = (tmp_path / "maps").rglob("*statmap.nii.gz")
    scan = nibabel.load(next(case.glob("*flair*")))
    assert nibabel.load(written).shape == scan.shape


@pytest.mark.slow
def test_segmentation_on_brats_2021(tmp_path: Path) -> None:
    cache, cohort, run, out = (tmp_path / name for name in ("cache", "cohort", "run", "out"))
    said(here("phantom", "-n", 8, "--seed", 0, "--spacing", 3, "-o", cohort, cache=cache))
    sizes = ("arguments.filters=4", "arguments.depth=3", "preprocessing.size=[64,64,64]")
    patch = ("patch=[32,40,24]", "batch=2", "accumulate=2", "epochs=4", "validate_every=2")
    settings = [word for s in (*sizes, *patch, "workers=1") for word in ("--set", s)]
    said(here(
        "train", "--config", "brats2021-segmentation", "--data", cohort, "-o", run, *settings,
        cache=cache,
    ))  # fmt: skip
    card = read_card(run / "checkpoint" / "card.json")
    assert card.training["config"]["optimizer"] == "adam"
    assert card.metrics["count"] == 2
    assert 0 <= card.training["waiting_for_data"] <= 1
    said(here(
        "evaluate", cohort, "--model", run / "checkpoint", "--split", run / "split.csv", "--flips",
        "--smallest-et", 200, "-o", out, cache=cache,
    ))  # fmt: skip
    measured = rows(out / "cases.csv")
    assert len(measured) == 2
    page = (out / "evaluation.md").read_text()
    assert "synthetic brats2021" in page
    assert "less than 200 mm³" in page
    assert page.count("not measured") == 3
    mean = np.mean([float(row["WT_dice"]) for row in measured])
    summary = json.loads((out / "evaluation.json").read_text())
    assert summary["regions"]["WT"]["dice"]["value"] == pytest.approx(mean, abs=1e-4)


def test_the_recipes_have_the_settings_of_the_paper() -> None:
    grading, segmentation = (
        read_config(name) for name in ("brats2019-grading", "brats2021-segmentation")
    )
    assert (grading.optimizer, segmentation.optimizer) == ("adam", "adam")
    assert (grading.learning_rate, segmentation.learning_rate) == (1e-3, 1e-4)
    assert (grading.epochs, segmentation.epochs) == (150, 1000)
    assert (grading.batch, segmentation.batch) == (64, 5)
    assert segmentation.patch == (128, 128, 128)
    assert segmentation.preprocessing.size == (192, 224, 160)
    assert {grading.preprocessing.intensity, segmentation.preprocessing.intensity} == {
        "zscore_minmax"
    }
    for recipe in (grading, segmentation):
        assert recipe.data.cohort is not None
        assert all(recipe.augmentation.flip)
        assert recipe.augmentation.rotation > 0


def test_pretrained_weights_are_loaded_into_all_layers_but_the_head(tmp_path: Path) -> None:
    start = imagenet_weights(tmp_path / "w.safetensors")
    torch.manual_seed(9)
    network = ResNet50()
    head = network.dense1.weight.clone()
    load_pretrained(network, tmp_path / "w.safetensors")
    for name, tensor in network.state_dict().items():
        if name in start:
            assert torch.equal(tensor, start[name]), name
    assert torch.equal(network.dense1.weight, head)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("layer3.2.conv1.weight"), r"missing layer3\.2\.conv1\.weight"),
        (
            lambda s: s.update({"layer5.weight": torch.zeros(1)}),
            r"unexpected tensor layer5\.weight",
        ),
        (
            lambda s: s.update({"conv1.weight": torch.zeros(64, 1, 7, 7)}),
            r"conv1\.weight has the shape \(64, 1, 7, 7\), expected \(64, 3, 7, 7\)",
        ),
    ],
)
def test_weights_that_match_in_part_raise_an_error(
    tmp_path: Path, change: object, words: str
) -> None:
    state = imagenet_weights(tmp_path / "w.safetensors")
    change(state)  # type: ignore[operator]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(TrainingError, match=words):
        load_pretrained(ResNet50(), tmp_path / "w.safetensors")


def test_a_pickle_raises_an_error() -> None:
    with pytest.raises(TrainingError, match=r"neuroxai convert torch resnet50\.pth"):
        load_pretrained(ResNet50(), "resnet50.pth")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["frozen_layers=[layer1]", "frozen_epochs=1"], "frozen layers would stay random"),
        (["frozen_norms=true"], "its norms have no statistics; set initial"),
    ],
)
def test_freezing_without_pretrained_weights_raises_an_error(
    tmp_path: Path, settings: list[str], sentence: str
) -> None:
    from neuroxai.training import train

    config = read_config("phantom-grading", overrides=[*settings, "workers=1"])
    with pytest.raises(TrainingError, match=sentence):
        train(config, tmp_path / "run")
