"""Losses against their equations, evaluated voxel by voxel."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from neuroxai.core.errors import TrainingError
from neuroxai.training.loop.losses import GradingLoss, RegionDiceCrossEntropy

CLASSES = ["background", "NCR", "ED", "ET"]
REGIONS = {"WT": ["NCR", "ED", "ET"], "TC": ["NCR", "ET"], "ET": ["ET"]}


def _slow(logits: list[list[list[float]]], truth: list[list[int]], weights: list[float]) -> float:
    """Evaluate the equation with s = 0.7, or 9 for absent regions."""
    logs, mass, overlaps = 0.0, 0.0, []
    for image, labels in zip(logits, truth, strict=True):
        probabilities = [[math.exp(v) / sum(map(math.exp, row)) for v in row] for row in image]
        logs -= sum(weights[t] * math.log(p[t]) for p, t in zip(probabilities, labels, strict=True))
        mass += sum(weights[t] for t in labels)
        # WT, TC, ET, and the classes that are not regions themselves: NCR, ED.
        for members in (*REGIONS.values(), ["NCR"], ["ED"]):
            indices = {CLASSES.index(name) for name in members}
            predicted = [sum(p[c] for c in indices) for p in probabilities]
            real = [float(t in indices) for t in labels]
            both = sum(a * b for a, b in zip(predicted, real, strict=True))
            smooth = 0.7 if sum(real) else 9.0
            overlaps.append((2 * both + smooth) / (sum(predicted) + sum(real) + smooth))
    return logs / mass + 1 - sum(overlaps) / len(overlaps)


@pytest.mark.parametrize("shape", [(3, 2, 5, 4), (2, 6, 3)])
def test_region_dice_equals_its_equation(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    logits = torch.randn(shape[0], 4, *shape[1:])
    truth = torch.randint(0, 4, shape)
    truth[-1] = truth[-1].clamp(max=2)  # one image without ET
    weights = [0.5, 2.0, 1.0, 3.0]
    loss = RegionDiceCrossEntropy(CLASSES, REGIONS, weights=weights, smooth=0.7, absent=9.0)
    expected = _slow(logits.flatten(2).transpose(1, 2).tolist(), truth.flatten(1).tolist(), weights)
    assert float(loss(logits, truth)) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_an_absent_region_does_not_vanish() -> None:
    """With a small s, false positives of an absent region would cost nothing."""
    truth = torch.zeros(1, 10, 10, 10, dtype=torch.long)
    logits = torch.zeros(1, 2, 10, 10, 10)
    logits[:, 1] = -1.0
    logits.requires_grad_()
    predicted = float(torch.softmax(logits.detach(), 1)[:, 1].sum())
    gradients = {}
    for absent in (1.0, 500.0):
        loss = RegionDiceCrossEntropy(["background", "ET"], {"ET": ["ET"]}, absent=absent)
        value = loss(logits, truth) - torch.nn.functional.cross_entropy(logits, truth)
        assert float(value.detach()) == pytest.approx(1 - absent / (predicted + absent), rel=1e-4)
        (gradient,) = torch.autograd.grad(value, logits)
        gradients[absent] = float(gradient[:, 1].sum())
    assert gradients[500.0] > 10 * gradients[1.0] > 0


def test_without_regions_the_loss_is_cross_entropy() -> None:
    logits, truth = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    plain = torch.nn.functional.cross_entropy(logits, truth)
    assert float(RegionDiceCrossEntropy(["a", "b", "c"], {})(logits, truth)) == float(plain)


def test_gradient_descent_finds_the_truth() -> None:
    truth = torch.randint(0, 4, (1, 6, 5), generator=torch.Generator().manual_seed(1))
    logits = torch.zeros(1, 4, 6, 5, requires_grad=True)
    loss = RegionDiceCrossEntropy(CLASSES, REGIONS)
    optimizer = torch.optim.SGD([logits], lr=20.0)
    for _ in range(60):
        optimizer.zero_grad()
        loss(logits, truth).backward()
        optimizer.step()
    assert torch.equal(logits.argmax(1), truth)


class _Stages(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.head = torch.nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(x).relu().mean((2, 3)))
        return logits


def test_the_auxiliary_loss_is_the_weighted_cross_entropy_of_tissue_fractions() -> None:
    torch.manual_seed(0)
    network = _Stages()
    loss = GradingLoss(network, ["body"], weight=0.5)
    x, grades = torch.randn(4, 3, 8, 12), torch.tensor([0, 1, 1, 0])
    tissue = torch.nn.functional.one_hot(torch.randint(0, 5, (4, 8, 12)), 5).movedim(-1, 1).float()
    value = loss(network(x), (grades, tissue)).item()
    weights = [0.3, 2.0, 1.0, 3.0, 1.0]
    scores = loss.heads["body"](network.body(x)).softmax(1).detach()
    total = 0.0
    for b, i, j in itertools.product(range(4), range(4), range(6)):
        cell = tissue[b, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((1, 2)).tolist()
        weighted = [fraction * each for fraction, each in zip(cell, weights, strict=True)]
        for t, each in enumerate(weights):
            total -= each * weighted[t] / sum(weighted) * math.log(float(scores[b, t, i, j]))
    plain = torch.nn.functional.cross_entropy(network(x), grades).item()
    assert value == pytest.approx(plain + 0.5 * total / (4 * 4 * 6), rel=1e-4)


def test_the_auxiliary_loss_does_not_change_the_network() -> None:
    network = _Stages()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    loss = GradingLoss(network, ["body"], weight=1.0)
    loss.close()
    assert not network.body._forward_hooks
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    assert not list(GradingLoss(network, ["body"]).parameters())
    with pytest.raises(TrainingError, match="did you mean 'body'"):
        GradingLoss(network, ["bodi"], weight=1.0)
