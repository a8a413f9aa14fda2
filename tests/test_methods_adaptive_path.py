"""Nodes where the target changes: weights, cost, and paths that do everything at one place."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from neuroxai.core.target import Class
from neuroxai.core.whole_volume import WholeVolume
from neuroxai.methods.adaptive_path import adaptive_nodes
from neuroxai.methods.integrated_gradients import IntegratedGradients


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
            torch.testing.assert_close(explained.values, expected, rtol=0.05, atol=0)
    assert gaps["midpoint"] > 0.5
    assert gaps["adaptive"] < 0.03


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(1, 60),
    corners=st.lists(st.floats(-3, 3), min_size=2, max_size=9),
    samples=st.integers(1, 3),
)
def test_weights_are_lengths_of_intervals_around_their_nodes(
    count: int, corners: list[float], samples: int
) -> None:
    asked: list[float] = []

    def score(positions: Sequence[float]) -> list[Tensor]:
        asked.extend(positions)
        values = []
        for position in positions:
            place = position * (len(corners) - 1)
            low = min(int(place), len(corners) - 2)
            value = corners[low] + (place - low) * (corners[low + 1] - corners[low])
            values.append(torch.tensor([value, *[0.5 * value] * (samples - 1)]))
        return values

    nodes, weights = adaptive_nodes(score, count)
    assert len(nodes) == len(weights) == count
    assert sum(weights) == pytest.approx(1)
    edge = 0.0
    for node, weight in zip(nodes, weights, strict=True):
        assert node == pytest.approx(edge + weight / 2)
        edge += weight
    assert len(asked) == count + 1, "one forward pass a node, and one for the last end"
    assert len(set(asked)) == len(asked)


def test_a_flat_path_is_cut_evenly() -> None:
    nodes, weights = adaptive_nodes(lambda ps: [torch.zeros(2) for _ in ps], 16)
    assert weights == [1 / 16] * 16
    assert nodes == [(k + 0.5) / 16 for k in range(16)]
