"""RISE: the formula of its paper, mask by mask, and its expectation on a linear network."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from networks import SHAPES, TASKS, Pooled, explain, image, make, relative
from neuroxai.core.errors import MethodError
from neuroxai.methods.rise import RISE, random_mask


def masks_of(method: RISE, x: Tensor, seed: int) -> list[Tensor]:
    """Draw the masks again, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    size = tuple(x.shape[2:])
    cells = [min(method.cells * 2**k, max(size)) for k in range(method.scales)]
    return [
        random_mask(size, cells[k % method.scales], generator).double()
        for k in range(method.samples // 2)
    ]


@pytest.mark.parametrize(("dims", "task"), list(itertools.product((2, 3), TASKS)))
def test_the_map_of_the_paper_less_the_mean_score(dims: int, task: str) -> None:
    """1 / (N E[m]) * sum of S(x m) m, over all masks and their complements."""
    network, x = make(task, dims).eval().double(), image(dims).double()
    start, method = 0.3 * image(dims, seed=8).double(), RISE(samples=24, cells=3, scales=2)
    got = explain(RISE(samples=24, cells=3, scales=2, remover=start), network, x, seed=4)
    drawn = masks_of(method, x, 4)
    weighted, scores = torch.zeros(3, 1, *SHAPES[dims]).double(), []
    for mask in [*drawn, *(1 - each for each in drawn)]:
        with torch.no_grad():
            score = Pooled(network)(mask * x + (1 - mask) * start)[:, 2]
        scores.append(score)
        weighted += score.reshape(-1, 1, *[1] * dims) * mask
    mean = torch.stack(scores).mean(dim=0).reshape(-1, 1, *[1] * dims)
    expected = weighted / (0.5 * 24) - mean
    assert relative(got.values, expected) <= 1e-9


def test_the_expectation_on_a_linear_network() -> None:
    """A linear score's map is the weights times the covariance of the masks."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(35, 1, bias=False)).double()
    x = torch.ones(1, 1, 5, 7).double()
    got = explain(RISE(samples=2000, remover="zero", scales=1), _as(network), x, seed=1)
    generator = torch.Generator().manual_seed(99)
    drawn = torch.stack([random_mask((5, 7), 4, generator).flatten() for _ in range(20000)])
    centered = drawn.double() - 0.5
    covariance = centered.T @ centered / len(drawn)
    expected = 2 * covariance @ network[1].weight[0].detach()  # type: ignore[index]
    error = got.diagnostics["relative_standard_error"]
    difference = got.values.flatten() - expected
    assert 0 < error < 0.2
    assert 0.5 * error < float(difference.norm() / expected.norm()) < 1.5 * error


def _as(network: nn.Module) -> nn.Module:
    """Repeat the only output, so that class 2 exists."""

    class Repeated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x).expand(-1, 3)
            return out

    return Repeated()


@pytest.mark.parametrize("dims", [2, 3])
def test_masks_are_half_and_smooth(dims: int) -> None:
    generator = torch.Generator().manual_seed(0)
    size = {2: (20, 33), 3: (12, 20, 9)}[dims]
    drawn = torch.stack([random_mask(size, 4, generator)[0, 0] for _ in range(600)])
    assert drawn.shape == (600, *size)
    assert float(drawn.min()) == 0
    assert float(drawn.max()) == pytest.approx(1)
    assert float((drawn.mean(dim=0) - 0.5).abs().max()) < 0.1
    edge = -(-max(size) // 4)
    assert float(drawn.diff(dim=1).abs().max()) <= 1 / edge + 1e-6


def test_the_standard_error_and_early_stopping() -> None:
    network, x = make("classifier"), image(batch=1)
    few, many = (explain(RISE(samples=n), network, x) for n in (64, 1024))
    ratio = few.diagnostics["relative_standard_error"] / many.diagnostics["relative_standard_error"]
    assert 1.5 < ratio < 8  # about the square root of 16, less what the map's own size gains
    again = [explain(RISE(samples=64), network, x, seed=s).values for s in range(12)]
    spread = torch.stack(again).std(dim=0).square().mean().sqrt()
    size = torch.stack(again).mean(dim=0).square().mean().sqrt()
    assert few.diagnostics["relative_standard_error"] == pytest.approx(
        float(spread / size), rel=0.6
    )
    enough = few.diagnostics["relative_standard_error"]
    stopped = explain(RISE(samples=1024, tolerance=enough), network, x)
    assert 16 <= stopped.diagnostics["samples"] <= 64
    assert stopped.diagnostics["relative_standard_error"] <= enough
    never = explain(RISE(samples=16, tolerance=1e-6), network, x)
    assert any("after 16 masks, above the tolerance" in note for note in never.notes)


@pytest.mark.parametrize(
    "parameters", [{"samples": 3}, {"samples": 0}, {"cells": 0}, {"scales": 0}, {"tolerance": 0.0}]
)
def test_a_bad_parameter_is_refused(parameters: dict[str, float]) -> None:
    with pytest.raises(MethodError, match=r"^rise: "):
        RISE(**parameters)  # type: ignore[arg-type]


def test_neighbors_cannot_be_faded() -> None:
    with pytest.raises(MethodError, match="fade them"):
        explain(RISE(samples=4, remover="neighbors"), make("classifier"), image())
