"""Ablation: the planted filter is necessary, hooks cover every pass and leave nothing behind."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from neuroxai.core.engine.fast_path import run_fast
from neuroxai.core.errors import LayerError
from neuroxai.core.layers.units import find_units
from neuroxai.inspection.ablation import ablate_filters
from neuroxai.inspection.dissection import Dissection
from planted import best_of, one_filter, planted


@pytest.mark.parametrize("dims", [2, 3])
def test_ablating_the_planted_filter_destroys_the_prediction(dims: int) -> None:
    network, cases = planted(dims)
    x, masks = cases[0]
    dissection = Dissection(network, ["bright"])
    dissection.add(x, masks)
    best = best_of([m for m in dissection.matches() if m.layer != "output"], "bright")
    units = find_units(network, x)

    def dice(filters: Mapping[str, list[int]]) -> float:
        with torch.no_grad(), ablate_filters(network, units, filters):
            found = network(x)[0].argmax(0) == 1
        size = int(found.sum() + masks["bright"].sum())
        return 2 * int((found & masks["bright"]).sum()) / size

    assert dice({}) == 1.0
    assert dice({best.layer: [best.filter]}) == 0.0
    assert dice({"second": [0, 1, 3]}) == 1.0
    assert dice({"first": [0]}) == 1.0
    assert not any(module._forward_hooks for module in network.modules())


def test_a_filter_without_rectifier_is_set_to_its_mean() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1))
    x = torch.rand(2, 1, 6, 7)
    units = find_units(network, x)
    with torch.no_grad(), ablate_filters(network, units, {"0": [1]}):
        changed = network(x)
    with torch.no_grad():
        plain = network[0](x)
        plain[:, 1] = plain[:, 1].mean(dim=(1, 2), keepdim=True)
        torch.testing.assert_close(changed, network[1](plain))


def test_ablating_an_inactive_filter_changes_nothing() -> None:
    """After a norm, an inactive filter outputs a constant other than zero."""
    network = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.ReLU(), nn.BatchNorm2d(2, eps=0.0), nn.Conv2d(2, 1, 1, bias=False)
    ).eval()
    with torch.no_grad():
        network[0].get_parameter("weight").zero_()
        network[0].get_parameter("bias").fill_(-1.0)
        network[2].get_buffer("running_mean").fill_(5.0)
        network[3].get_parameter("weight").fill_(1.0)
    x = torch.rand(1, 1, 4, 3)
    with torch.no_grad(), ablate_filters(network, find_units(network, x), {"0": [0]}):
        assert torch.equal(network(x), torch.full((1, 1, 4, 3), -10.0))


def test_filters_are_ablated_in_every_pass() -> None:
    network = nn.Sequential(one_filter(nn.ReLU()), nn.Conv2d(1, 1, 1, bias=False))
    x = torch.ones(1, 1, 4, 3)
    units = find_units(network, x)
    with torch.no_grad():
        plain = float(network(x).abs().mean())
        with ablate_filters(network, units, {"0.0": [0]}):
            assert [float(network(x).abs().mean()) for _ in range(3)] == [0.0] * 3
        assert float(network(x).abs().mean()) == plain > 0


def test_the_second_call_of_a_layer_is_ablated_in_every_pass() -> None:
    conv = nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.fill_(2.0)
    network = nn.Sequential(conv, conv)
    x = torch.rand(1, 1, 4, 3)
    expected = 4 * x.mean() + 6  # 2 (2 x + 2) + 2, and the mean of the second call
    with torch.no_grad(), ablate_filters(network, find_units(network, x), {"0#2": [0]}):
        for _ in range(2):
            torch.testing.assert_close(network(x), expected.expand(1, 1, 4, 3))


def test_filters_are_ablated_when_the_fast_path_is_retried() -> None:
    failures: list[None] = []

    class FailsOnce(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.see, self.act, self.out = nn.Conv3d(1, 3, 3), nn.ReLU(), nn.Conv3d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.out(self.act(self.see(x)))
            if failures:
                failures.pop()
                raise RuntimeError("view size is not compatible with input tensor's size")
            return out

    network = FailsOnce().eval()
    x = torch.randn(1, 1, 5, 6, 7)
    units = find_units(network, x)
    with torch.no_grad(), ablate_filters(network, units, {"see": [0, 1, 2]}):
        expected = network(x)
        failures.append(None)
        found = run_fast(network, x, lambda x: network(x.clone()))
    bias = network.out.bias
    assert bias is not None
    assert not failures
    torch.testing.assert_close(found, bias.detach().reshape(1, 2, 1, 1, 1).expand_as(found))
    torch.testing.assert_close(found, expected)


def test_unknown_layers_and_filters_raise_errors() -> None:
    network, cases = planted(2)
    x, _ = cases[0]
    units = find_units(network, x)
    with (
        pytest.raises(LayerError, match="did you mean 'second'"),
        ablate_filters(network, units, {"secnd": [0]}),
    ):
        pass
    with (
        pytest.raises(LayerError, match="expected 0 to 3"),
        ablate_filters(network, units, {"second": [4]}),
    ):
        pass
