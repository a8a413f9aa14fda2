"""Nodes where equal steps would err: a slow greedy oracle, the cost, paths with all at one end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from networks import image, make, plain_gradient, relative
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.target import Class
from neuroxai.methods.integrated_gradients import IntegratedGradients
from neuroxai.methods.paths import adaptive_path
from neuroxai.methods.paths.adaptive_path import Limits, integrate
from neuroxai.methods.paths.straight_path import Rows

TARGET = 1


class Step(nn.Module):
    """A sigmoid of the mean, steep at one place of the path from zero to one."""

    def __init__(self, steepness: float, place: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(1, 2, 5, 4, 3, dtype=torch.float64) + 0.1)
        self.steepness, self.place = steepness, place

    def forward(self, x: Tensor) -> Tensor:
        mean = (self.weight * x).flatten(1).sum(1, keepdim=True) / self.weight.sum()
        return torch.cat([torch.sigmoid(self.steepness * (mean - self.place)), 0 * mean], dim=1)


@pytest.mark.parametrize(("steepness", "place"), [(2000, 0.003), (3000, 0.6), (900, 0.997)])
def test_a_change_that_equal_steps_never_see_is_found(steepness: float, place: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1, 2, 5, 4, 3, dtype=torch.float64)
    network = Step(steepness, place).double()
    gaps = {}
    for rule in ("midpoint", "adaptive"):
        method = IntegratedGradients(steps=32, rule=rule, baseline="zero")
        explained = method.explain(WholeVolume(network, Class(0)), x)
        gaps[rule] = explained.diagnostics["completeness_gap"][0]
        if rule == "adaptive":
            # Closed form: a function of a weighted mean shares its change out by the weights.
            weight = network.weight.detach()
            change = network(x)[0, 0] - network(0 * x)[0, 0]
            expected = weight / weight.sum() * change.detach()
            torch.testing.assert_close(explained.values, expected, rtol=0.01, atol=0)
            assert explained.diagnostics["interval_gap"][0] >= gaps[rule]
    assert gaps["midpoint"] > 0.5
    assert gaps["adaptive"] < 0.01


def by_hand(network: nn.Module, x: Tensor, start: Tensor, count: int) -> tuple[Tensor, float]:
    """One sample: always cut what is farthest off, ask everything anew, keep nothing."""
    difference = x - start

    def score(p: float) -> float:
        with torch.no_grad():
            return float(network(start + p * difference)[:, TARGET].mean())

    def slope(p: float) -> float:
        gradient = plain_gradient(network, start + p * difference, TARGET)
        return float((gradient * difference).sum())

    def error(a: float, b: float) -> float:
        return slope((a + b) / 2) * (b - a) - (score(b) - score(a))

    edges = np.linspace(0, 1, 4 + (count + 1) % 2).tolist()
    while len(edges) - 1 + 2 <= count:
        off = [abs(error(a, b)) for a, b in pairwise(edges)]
        at = int(np.argmax(off))
        a, b = edges[at], edges[at + 1]
        edges[at + 1 : at + 1] = [a + (b - a) / 3, b - (b - a) / 3]
    total = torch.zeros_like(x)
    for a, b in pairwise(edges):
        middle = start + (a + b) / 2 * difference
        total += (b - a) * plain_gradient(network, middle, TARGET)
    return total * difference, sum(abs(error(a, b)) for a, b in pairwise(edges))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("count", [1, 2, 4, 9, 14])
def test_it_equals_a_slow_search_one_cut_at_a_time(
    dims: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptive_path, "INTERVALS_PER_ROUND", 1)
    monkeypatch.setattr(adaptive_path, "_EXACT", 0.0)
    monkeypatch.setattr(adaptive_path, "INITIAL_INTERVALS", min(3, count))
    network, x = make("classifier", dims).double().eval(), image(dims).double()
    start = 0.4 * image(dims, seed=6).double() - 0.5
    method = IntegratedGradients(steps=count, baseline=start)
    found = method.explain(WholeVolume(network, Class(TARGET)), x)
    assert found.diagnostics["nodes"] == count
    for b in range(len(x)):
        if count < 3:
            expected = torch.zeros_like(x[:1])
            for k in range(count):
                point = start[b : b + 1] + (k + 0.5) / count * (x - start)[b : b + 1]
                expected += plain_gradient(network, point, TARGET) / count
            expected *= (x - start)[b : b + 1]
        else:
            expected, off = by_hand(network, x[b : b + 1], start[b : b + 1], count)
            change = abs(found.diagnostics["score_change"][b])
            assert found.diagnostics["interval_gap"][b] == pytest.approx(off / change, rel=1e-6)
        assert relative(found.values[b : b + 1], expected) <= 1e-10, b


@pytest.mark.parametrize("steps", [6, 25])
def test_a_sample_does_not_depend_on_what_is_beside_it(steps: int) -> None:
    network, x = make("segmenter", 3).double().eval(), image(3).double()
    method = IntegratedGradients(steps=steps, baseline="zero")

    def values(x: Tensor) -> Tensor:
        return method.explain(WholeVolume(network, Class(TARGET)), x).values

    together = values(x)
    for b in range(len(x)):
        assert relative(together[b : b + 1], values(x[b : b + 1])) <= 1e-10
    assert relative(values(x.flip(0)), together.flip(0)) <= 1e-10


class Drawn:
    """A path whose scores and slopes are drawn, and whose gradients record their positions."""

    free_memory: int | None = None

    def __init__(self, corners: Sequence[float], samples: int, noise: float) -> None:
        self.difference = torch.ones(samples, 3, dtype=torch.float64)
        self.corners, self.noise = corners, noise
        self.requested: list[list[float]] = []

    def score(self, position: float) -> float:
        return float(np.interp(position, np.linspace(0, 1, len(self.corners)), self.corners))

    def scores(self, rows: Rows) -> list[list[float]]:
        return [[self.score(p) * (b + 1) for b, p in enumerate(row)] for row in rows]

    def gradients(self, rows: Rows) -> Iterator[Tensor]:
        for row in rows:
            self.requested.append(list(row))
            p = torch.tensor(row, dtype=torch.float64)
            yield torch.stack([torch.ones_like(p), p, p**2], dim=1)

    def slopes(self, gradients: Sequence[Tensor]) -> list[list[float]]:
        h = 1e-7
        return [
            [
                (b + 1) * (self.score(p + h) - self.score(p - h)) / (2 * h)
                + self.noise * np.sin(1e3 * p)
                for b, p in enumerate(gradient[:, 1].tolist())
            ]
            for gradient in gradients
        ]


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 60),
    corners=st.lists(st.floats(-3, 3), min_size=2, max_size=9),
    samples=st.integers(1, 3),
    noise=st.floats(0, 2),
    kept=st.sampled_from([0, 2**29]),
)
def test_the_weights_fill_the_path_whatever_was_forgotten(
    count: int, corners: list[float], samples: int, noise: float, kept: int
) -> None:
    """Middles of intervals that fill [0, 1] have the mean 1/2 exactly, and their squares too few.

    Also where gradients were not kept, and had to be asked again.
    """
    path = Drawn(corners, samples, noise)
    ends = (
        torch.tensor(path.scores([[0.0] * samples])[0]),
        torch.tensor(path.scores([[1.0] * samples])[0]),
    )
    before, adaptive_path._KEPT_BYTES = adaptive_path._KEPT_BYTES, kept
    try:
        found = integrate(path, ends, Limits(count))
    finally:
        adaptive_path._KEPT_BYTES = before
    for mean, nodes in zip(found.mean, found.nodes, strict=True):
        assert nodes <= count
        assert mean[0] == pytest.approx(1)
        assert mean[1] == pytest.approx(0.5)
        assert mean[2] <= 1 / 3
        assert mean[2] >= 1 / 3 - 1 / 12 - 1e-9
    assert len(path.requested) >= max(found.nodes)
    assert len(path.requested) <= sum(found.nodes)


def test_a_straight_path_takes_no_more_than_it_begins_with() -> None:
    found = Drawn([0.0, 1.0], 2, 0.0)
    ends = torch.tensor([0.0, 0.0]), torch.tensor([1.0, 2.0])
    assert integrate(found, ends, Limits(25)).nodes == (3, 3)


def test_forgotten_gradients_are_asked_again_and_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive_path, "_KEPT_BYTES", 0)
    monkeypatch.setattr(adaptive_path, "INTERVALS_PER_ROUND", 1)
    path = Drawn([0.0, 1.0, -1.0, 3.0, 0.5, 2.0], 1, 1.0)
    found = integrate(path, (torch.tensor([0.0]), torch.tensor([2.0])), Limits(41))
    positions = [round(row[0], 12) for row in path.requested]
    assert len(set(positions)) < len(positions) <= 41
    assert found.mean[0, 1] == pytest.approx(0.5)


@pytest.mark.parametrize("tolerance", [0.05, 0.002])
def test_a_tolerance_adds_nodes_where_they_are_wanted(tolerance: float) -> None:
    network, x = make("segmenter", 3).double().eval(), image(3).double()[:1]

    def explained(**parameters: float) -> tuple[float, int]:
        method = IntegratedGradients(baseline="zero", **parameters)  # type: ignore[arg-type]
        found = method.explain(WholeVolume(network, Class(TARGET)), x).diagnostics
        return found["completeness_gap"][0], found["nodes"]

    gap, nodes = explained(steps=3, tolerance=tolerance)
    assert gap <= tolerance
    assert 3 < nodes < 1024
    if nodes > 5:
        assert explained(steps=nodes - 2)[1] == nodes - 2, "a smaller count is kept to"
