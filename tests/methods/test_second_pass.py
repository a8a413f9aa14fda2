"""Networks that answer differently each time: every map reports the difference of two passes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import neuroxai as nx
from networks import explain, image, make, quick, seeded
from neuroxai.core.target.target import Class
from neuroxai.methods import METHODS

OWN = torch.Generator().manual_seed(5)


class Noisy(nn.Module):
    """Adds noise to the features."""

    def __init__(self, draw: str) -> None:
        super().__init__()
        self.enter, self.head = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 5, 1)
        self.draw, self.calls = draw, 0
        self.generator = np.random.default_rng(3)

    def forward(self, x: Tensor) -> Tensor:
        features = self.enter(x).relu()
        self.calls += 1
        ways: dict[str, Callable[[], float | Tensor]] = {
            "dropout": lambda: nn.functional.dropout(torch.ones(6, 1, 1), 0.5, training=True),
            "numpy": lambda: 1 + float(np.random.rand()),  # noqa: NPY002
            "own": lambda: 1 + float(self.generator.random()),
            "file": lambda: 1 + float(torch.rand((), generator=OWN)),
            "counter": lambda: float(self.calls),
            "none": lambda: 1.0,
        }
        out: Tensor = self.head(features * ways[self.draw]())
        return out


@pytest.mark.parametrize("draw", ["dropout", "numpy", "own", "file", "counter"])
@pytest.mark.parametrize("name", ["vanilla_gradient", "grad_cam", "integrated_gradients"])
def test_the_difference_is_reported(draw: str, name: str) -> None:
    network = seeded(1, lambda: Noisy(draw))
    own, files = network.generator.bit_generator.state, OWN.get_state()  # type: ignore[union-attr]
    got = nx.explain(network, image(batch=1), quick(name), 1)[name].explanation
    (note,) = [each for each in got.notes if "answers differently each time" in each]
    second = got.diagnostics["second_pass"]
    assert second["output_change"] > 1e-3
    assert second["score"][0] != pytest.approx(got.score[0], rel=1e-5)
    assert f"{second['score'][0]:.4g}" in note
    assert network.generator.bit_generator.state == own  # type: ignore[union-attr]
    assert torch.equal(OWN.get_state(), files)


def test_the_second_score_is_that_of_the_second_pass() -> None:
    network, x = seeded(1, lambda: Noisy("counter")), image(batch=1)
    with torch.no_grad():
        expected = [float(network(x)[:, 1].double().mean()) for _ in range(2)]
    network.calls = 0  # type: ignore[assignment]
    got = explain("vanilla_gradient", network, x, target=Class(1))
    assert got.score[0] == pytest.approx(expected[0], rel=1e-5)
    assert got.diagnostics["second_pass"]["score"][0] == pytest.approx(expected[1], rel=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_other_networks_are_not_run_twice(name: str) -> None:
    got = explain(quick(name), make("segmenter"), image())
    assert "second_pass" not in got.diagnostics
    network = seeded(1, lambda: Noisy("none"))
    assert "second_pass" not in explain(quick(name), network, image(batch=1)).diagnostics
