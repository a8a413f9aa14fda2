"""The loss against its equation, written out voxel by voxel."""

from __future__ import annotations

import math

import pytest
import torch

from neuroxai.training.losses import RegionDiceCrossEntropy

CLASSES = ["background", "NCR", "ED", "ET"]
REGIONS = {"WT": ["NCR", "ED", "ET"], "TC": ["NCR", "ET"], "ET": ["ET"]}


def _slow(logits: torch.Tensor, truth: torch.Tensor, weights: list[float], smooth: float) -> float:
    points = list(zip(logits.movedim(1, -1).reshape(-1, 4), truth.flatten().tolist(), strict=True))
    chances = [[math.exp(v) / sum(map(math.exp, row)) for v in row] for row, _ in points]
    labels = [label for _, label in points]
    entropy = -sum(weights[t] * math.log(p[t]) for p, t in zip(chances, labels, strict=True))
    entropy /= sum(weights[t] for t in labels)
    overlaps = []
    # WT, TC, ET, and the classes that are no region of their own: NCR, ED.
    for members in (*REGIONS.values(), ["NCR"], ["ED"]):
        indices = {CLASSES.index(name) for name in members}
        found = [sum(p[c] for c in indices) for p in chances]
        real = [float(t in indices) for t in labels]
        both = sum(a * b for a, b in zip(found, real, strict=True))
        overlaps.append((2 * both + smooth) / (sum(found) + sum(real) + smooth))
    return float(entropy + 1 - sum(overlaps) / 5)


@pytest.mark.parametrize("shape", [(3, 2, 5, 4), (2, 6, 3)])
def test_it_equals_the_equation(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    logits = torch.randn(shape[0], 4, *shape[1:], dtype=torch.float64).float()
    truth = torch.randint(0, 4, shape)
    weights = [0.5, 2.0, 1.0, 3.0]
    loss = RegionDiceCrossEntropy(CLASSES, REGIONS, weights=weights, smooth=0.7)
    rows = [[float(v) for v in row] for row in logits.movedim(1, -1).reshape(-1, 4)]
    expected = _slow(torch.tensor(rows).reshape(*shape, 4).movedim(-1, 1), truth, weights, 0.7)
    assert float(loss(logits, truth)) == pytest.approx(expected, rel=1e-5)


def test_without_regions_it_is_cross_entropy() -> None:
    logits, truth = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    plain = torch.nn.functional.cross_entropy(logits, truth)
    assert float(RegionDiceCrossEntropy(["a", "b", "c"], {})(logits, truth)) == float(plain)


def test_descent_finds_the_truth() -> None:
    truth = torch.randint(0, 4, (1, 6, 5), generator=torch.Generator().manual_seed(1))
    logits = torch.zeros(1, 4, 6, 5, requires_grad=True)
    loss = RegionDiceCrossEntropy(CLASSES, REGIONS)
    optimizer = torch.optim.SGD([logits], lr=20.0)
    for _ in range(60):
        optimizer.zero_grad()
        loss(logits, truth).backward()
        optimizer.step()
    assert torch.equal(logits.argmax(1), truth)
