"""Outputs whose levels are off by a known amount are set right, by the Dice that is reported."""

from __future__ import annotations

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
    _doubtful,
    _mean_dice,
    choose_shift,
    shift_outputs,
)
from neuroxai.training.config.config import Config
from neuroxai.training.data.cases import Prepared

OFF = (0.0, 1.25, -1.0, -0.75)


class Logits(nn.Module):
    """Shows its input, each class's evidence, with levels that are off."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Conv3d(4, 4, 1)
        with torch.no_grad():
            self.output.weight.copy_(torch.eye(4)[..., None, None, None])
            self.output.get_parameter("bias").copy_(torch.tensor(OFF))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.output(x)
        return out


def case(seed: int) -> Prepared:
    """Balls in balls, and evidence with noise; some truth was cut off by the box."""
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
    return Prepared(
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


def test_levels_that_are_off_are_set_right() -> None:
    cases, cpu = [case(seed) for seed in range(5)], torch.device("cpu")
    network = Logits()
    before = mean_dice(network, cases, config(), cpu)
    told: list[float] = []
    shift = choose_shift(
        network, cases, config(), cpu, lambda stage, done, total: told.append(done)
    )
    assert told == [0, 1, 2, 3, 4, 5]
    assert shift[0] == 0
    assert max(map(abs, shift)) <= LARGEST
    assert network.output.get_parameter("bias").tolist() == pytest.approx(OFF), "only chosen so far"
    shift_outputs(network, shift)
    after = mean_dice(network, cases, config(), cpu)
    assert after > before + 0.05
    # By the Dice of whole cases, no coarse triple is better, and the planted ones are undone.
    best = 0.0
    for triple in itertools.product((-1.5, -0.5, 0.5, 1.5), repeat=3):
        other = Logits()
        shift_outputs(other, (0.0, *triple))
        best = max(best, mean_dice(other, cases, config(), cpu))
    assert after >= best - 0.003
    # Right levels, with this noise, are a little in favor of the background.
    right = np.add(shift, OFF)[1:]
    assert np.ptp(right) <= 0.75


@pytest.mark.parametrize(
    "shift", [(0, 0, 0, 0), (0, -1.5, 2, 0.5), (0, 2, 2, 2), (0, -2, -2, -2), (0, 0.5, -0.5, 2)]
)
def test_what_is_held_of_a_case_is_enough(shift: tuple[float, ...]) -> None:
    """The Dice of the held voxels is that of the whole cases, asked anew with shifted outputs."""
    cases, cpu, network = [case(seed) for seed in range(3)], torch.device("cpu"), Logits()
    with torch.no_grad():
        network.output.weight.mul_(4)
    held = [_doubtful(network, each, cpu) for each in cases]
    assert all(each.truth.size < np.prod(each.case.shape) for each in held)
    found = _mean_dice(held, np.array(shift, np.float32), config())
    shift_outputs(network, shift)
    assert found == pytest.approx(mean_dice(network, cases, config(), cpu), abs=1e-9)


def test_what_is_right_stays() -> None:
    network, cases = Logits(), [case(seed) for seed in range(3)]
    with torch.no_grad():
        network.output.get_parameter("bias").zero_()
        network.output.weight.mul_(20)
    sharp = [
        Prepared(c.name, c.group, (c.truth == np.arange(4)[:, None, None, None]).astype(np.float16),
                 c.truth, c.start, c.shape, c.counts, c.spacing, c.voxel_mm3)
        for c in cases
    ]  # fmt: skip
    shift = choose_shift(network, sharp, config(), torch.device("cpu"), lambda *_: None)
    assert shift == (0.0, 0.0, 0.0, 0.0)


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
def test_where_it_cannot_be_it_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        config(**changes)
