"""Logit bias: a planted bias is removed, and the score of the search is the reported Dice."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuroxai.core.errors import TrainingError
from neuroxai.training.card.evaluate import mean_dice
from neuroxai.training.card.logit_bias import (
    LARGEST,
    _candidates,
    _mean_dice,
    add_logit_bias,
    fit_logit_bias,
)
from neuroxai.training.config.config import Config
from neuroxai.training.data.cases import PreparedCase

PLANTED = (0.0, 1.25, -1.0, -0.75)


class Logits(nn.Module):
    """Return the input, one channel of evidence per class, with a planted bias."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Conv3d(4, 4, 1)
        with torch.no_grad():
            self.output.weight.copy_(torch.eye(4)[..., None, None, None])
            self.output.get_parameter("bias").copy_(torch.tensor(PLANTED))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.output(x)
        return out


def case(seed: int) -> PreparedCase:
    """Concentric balls and noisy evidence; cropping removed nine voxels of the truth."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.arange(n) for n in (14, 12, 10)), indexing="ij")
    center = rng.uniform(4, 8, 3)
    far = np.sqrt(sum((axis - middle) ** 2 for axis, middle in zip(axes, center, strict=True)))
    truth = np.select([far < 1.7, far < 2.6 + seed % 2, far < 4.6], [1, 3, 2], 0).astype(np.uint8)
    evidence = 2.0 * (truth == np.arange(4)[:, None, None, None]) + rng.normal(
        0, 0.9, (4, *truth.shape)
    )
    counts = [int((truth == k).sum()) for k in range(4)]
    counts[2] += 9
    return PreparedCase(
        f"c{seed}", f"c{seed}", evidence.astype(np.float16), truth, (1, 0, 2), (16, 12, 13),
        (*counts, 0), 2.0, 8.0,
    )  # fmt: skip


def config(**changes: Any) -> Config:
    table: dict[str, Any] = {
        "name": "n",
        "task": "segmentation",
        "architecture": "deepseg",
        "modalities": ["FLAIR"],
        "preprocessing": {"size": [16, 12, 13], "divisor": 1},
        "data": {"phantom": {"train": [0, 1], "test": [1, 2], "validation": [5, 9]}},
        "max_steps": 1,
        "smallest_enhancement_mm3": 60,
        "logit_bias": True,
    }
    return Config.from_dict(table | changes)


def test_a_planted_bias_is_removed() -> None:
    cases, cpu = [case(seed) for seed in range(5)], torch.device("cpu")
    network = Logits()
    before = mean_dice(network, cases, config(), cpu)
    reported: list[float] = []
    bias = fit_logit_bias(
        network, cases, config(), cpu, lambda stage, done, total: reported.append(done)
    )
    assert reported == [0, 1, 2, 3, 4, 5]
    assert bias[0] == 0
    assert max(map(abs, bias)) <= LARGEST
    assert network.output.get_parameter("bias").tolist() == pytest.approx(PLANTED), (
        "fitted, not added"
    )
    add_logit_bias(network, bias)
    after = mean_dice(network, cases, config(), cpu)
    assert after > before + 0.05
    # No triple on a coarse grid has a better Dice on whole cases.
    best = 0.0
    for triple in itertools.product((-1.5, -0.5, 0.5, 1.5), repeat=3):
        other = Logits()
        add_logit_bias(other, (0.0, *triple))
        best = max(best, mean_dice(other, cases, config(), cpu))
    assert after >= best - 0.003
    # The planted differences are removed; with this noise a common offset remains.
    remaining = np.add(bias, PLANTED)[1:]
    assert np.ptp(remaining) <= 0.75


@pytest.mark.parametrize(
    "bias", [(0, 0, 0, 0), (0, -1.5, 2, 0.5), (0, 2, 2, 2), (0, -2, -2, -2), (0, 0.5, -0.5, 2)]
)
def test_the_dice_of_candidate_voxels_is_that_of_whole_cases(bias: tuple[float, ...]) -> None:
    """Predicted again, with the bias added to the network."""
    cases, cpu, network = [case(seed) for seed in range(3)], torch.device("cpu"), Logits()
    with torch.no_grad():
        network.output.weight.mul_(4)
    candidates = [_candidates(network, each, cpu) for each in cases]
    assert all(each.truth.size < np.prod(each.case.shape) for each in candidates)
    found = _mean_dice(candidates, np.array(bias, np.float32), config())
    add_logit_bias(network, bias)
    assert found == pytest.approx(mean_dice(network, cases, config(), cpu), abs=1e-9)


def test_correct_logits_get_no_bias() -> None:
    network, cases = Logits(), [case(seed) for seed in range(3)]
    with torch.no_grad():
        network.output.get_parameter("bias").zero_()
        network.output.weight.mul_(20)
    one_hot = np.arange(4)[:, None, None, None]
    sharp = [
        dataclasses.replace(each, images=(each.truth == one_hot).astype(np.float16))
        for each in cases
    ]
    bias = fit_logit_bias(network, sharp, config(), torch.device("cpu"), lambda *_: None)
    assert bias == (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"data": {"phantom": {"train": [0, 1], "test": [1, 2]}}},
            "logit_bias needs validation cases",
        ),
        (
            {
                "task": "classification",
                "architecture": "resnet50",
                "classes": ["LGG", "HGG"],
                "preprocessing": {"size": [16, 12], "plane": "axial"},
                "patch": [16, 12],
            },
            "logit_bias is for segmenters",
        ),
    ],
)
def test_invalid_configurations_raise_errors(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        config(**changes)
