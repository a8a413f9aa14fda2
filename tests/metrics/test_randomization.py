"""A map that ignores what was learned is found, and random weights leave the network alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from networks import image, make
from neuroxai.core.explanation import Attribution, network_hash
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.target import Class
from neuroxai.methods import make_method
from neuroxai.methods.base import Method
from neuroxai.metrics import Judged, make_metric
from neuroxai.metrics.again import randomized, weighted_layers


@dataclass(frozen=True)
class Edges(Method):
    """An edge detector that poses as a method."""

    name: ClassVar[str] = "edges"
    title: ClassVar[str] = "Edges"
    citation: ClassVar[str] = "none"

    def attribute(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Attribution:
        probe.score(x)
        return Attribution(x - x.roll(1, dims=2))


class Peak(nn.Module):
    """Trained, in a sense: class 0 reads a single voxel of the first modality."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.head = nn.Linear(int(torch.tensor(shape).prod()), 3)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[0, 25] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x.flatten(1))
        return out


@pytest.mark.parametrize("dims", [2, 3])
def test_an_edge_detector_does_not_depend_on_the_network(dims: int) -> None:
    network, x = make("classifier", dims).eval(), image(dims, batch=2)
    probe = WholeVolume(network, Class(2))
    edges = Judged(Edges().explain(probe, x).values, x, probe, method=Edges())
    for metric in ("mprt", "random_class"):
        assert make_metric(metric)(edges).values == pytest.approx((1.0, 1.0))
    assert make_metric("emprt", {"draws": 2})(edges).values == pytest.approx((0.0, 0.0))
    method = make_method("vanilla_gradient")
    gradient = Judged(method.explain(probe, x).values, x, probe, method=method)
    for metric in ("mprt", "random_class"):
        assert all(v is not None and v < 0.8 for v in make_metric(metric)(gradient).values)


@pytest.mark.parametrize("entropy", ["histogram", "spatial"])
def test_the_entropy_rises_where_random_weights_spread_a_sharp_map(entropy: str) -> None:
    x = torch.rand(1, 2, 5, 6, 4) + 0.5
    network = Peak(tuple(x.shape[1:]))
    probe, method = WholeVolume(network, Class(0)), make_method("vanilla_gradient")
    judged = Judged(
        method.explain(probe, x).values + 1e-4 * torch.rand(x.shape), x, probe, method=method
    )
    found = make_metric("emprt", {"entropy": entropy, "draws": 3})(judged)
    assert found.values[0] is not None
    assert found.values[0] > 0.5
    assert len(found.details["rises"]) == 3


def test_random_networks_are_copies_with_the_layers_that_were_asked_for() -> None:
    network = make("segmenter", 3)
    before = network_hash(network)
    everything = randomized(network, 1)
    assert network_hash(network) == before
    assert network_hash(everything) == network_hash(randomized(network, 1))
    assert network_hash(everything) != network_hash(randomized(network, 2))
    assert weighted_layers(network) == ["enter", "norm", "down", "join", "exit"]
    last = randomized(network, 1, {"exit"})
    for name, parameter in network.named_parameters():
        same = torch.equal(parameter, last.get_parameter(name))
        assert same != name.startswith("exit"), name


def test_parameters_outside_of_modules_are_drawn_too() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.linspace(1, 2, 40))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale

    drawn = randomized(Own(), 0).get_parameter("scale")
    assert not torch.equal(drawn, Own().scale)
    assert 1.2 < float(drawn.detach().mean()) < 1.8
