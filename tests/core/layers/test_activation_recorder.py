"""Blocks that a network runs twice or without gradients, and what can be said of their layers."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import neuroxai as nx
from networks import USUAL, explain, image, quick_methods, seeded
from neuroxai.core.errors import LayerError, MethodError
from neuroxai.core.target.target import Class
from neuroxai.inspection.filters import filters
from neuroxai.inspection.information_flow import information_flow
from neuroxai.methods import make_method


class Blocks(nn.Module):
    """Three convolutions; the one in the middle runs in some way of its own."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.middle = nn.Conv2d(4, 5, 3, padding=1)
        self.last = nn.Conv2d(5, 3, 1)

    def block(self, x: Tensor) -> Tensor:
        out: Tensor = self.middle(x).relu()
        return out

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        if self.way == "plain":
            x = self.block(x)
        elif self.way == "no_grad":
            with torch.no_grad():
                x = self.block(x)
        else:
            x = checkpoint(self.block, x, use_reentrant=self.way == "reentrant")
        out: Tensor = self.last(x)
        return out


def blocks(way: str) -> Blocks:
    torch.manual_seed(3)
    return Blocks(way).eval()


# What torch says of a reentrant block whose input wants no gradients.
pytestmark = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")

IMAGE = torch.rand(2, 1, 8, 10, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layer", ["first", "middle", "last"])
def test_a_layer_inside_a_checkpointed_block_has_the_map_of_a_plain_one(layer: str) -> None:
    method = make_method("grad_cam", {"layer": layer})
    plain, twice = (explain(method, blocks(way), IMAGE).values for way in ("plain", "twice"))
    assert torch.equal(plain, twice)
    found = [filters(blocks(way), IMAGE, [Class(2)], [layer])[0] for way in ("plain", "twice")]
    assert torch.equal(found[0].importance["2"], found[1].importance["2"])
    assert float(found[0].importance["2"].abs().max()) > 0
    flows = [information_flow(blocks(way), IMAGE, [Class(2)]) for way in ("plain", "twice")]
    assert torch.equal(*(flow.targets[0].maps[layer] for flow in flows))


@pytest.mark.parametrize("way", ["no_grad", "reentrant"])
def test_a_layer_that_runs_without_gradients_is_not_called_unimportant(way: str) -> None:
    network = blocks(way)
    words = "'middle' runs without gradients"
    with pytest.raises(LayerError, match=words):
        filters(network, IMAGE, [Class(2)], ["middle"])
    with pytest.raises(LayerError, match=words):
        explain(make_method("grad_cam", {"layer": "middle"}), network, IMAGE)


def test_the_flow_names_what_ran_without_gradients() -> None:
    (target,) = information_flow(blocks("no_grad"), IMAGE, [Class(2)]).targets
    assert list(target.maps) == ["last"]
    assert target.independent_layers == ("first",)
    assert "1 layer(s) have no map because they run without gradients" in target.notes[0]
    assert target.notes[0].endswith(": middle")


def test_a_reentrant_checkpoint_is_refused_in_words() -> None:
    network = blocks("reentrant")
    for name in ("vanilla_gradient", "guided_backprop"):
        with pytest.raises(MethodError, match="set use_reentrant=False"):
            explain(name, network, IMAGE)
    with pytest.raises(MethodError, match="set use_reentrant=False"):
        filters(network, IMAGE, [Class(2)], ["first"])
    got = explain(make_method("grad_cam", {"layer": "last"}), network, IMAGE)
    same = explain(make_method("grad_cam", {"layer": "last"}), blocks("plain"), IMAGE)
    assert torch.equal(got.values, same.values)


class Detaching(nn.Module):
    """Its first layer runs without gradients; what follows has them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 5, 3, padding=1)
        self.body, self.act = nn.Conv2d(5, 6, 3, padding=1), nn.ReLU()
        self.exit = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.stem(x)
        out: Tensor = self.exit(self.act(self.body(x)))
        return out


def test_a_network_that_detaches_its_input_has_maps_of_layers_alone() -> None:
    network, x = seeded(3, Detaching).eval(), image()
    found = nx.explain(network, x, quick_methods(), 2)
    assert list(found) == ["grad_cam", "hirescam", "layercam"]
    words = "does not depend on the input in any differentiable way"
    assert all(words in reason for reason in found.refused.values())
    with torch.no_grad():
        middle = network.get_submodule("stem")(x)
    rest = nn.Sequential(*list(network.children())[1:])
    same = nx.explain(rest, middle, "grad_cam", 2)["grad_cam"].values
    assert torch.equal(found["grad_cam"].values, same)
    assert float(same.abs().max()) > 0


@pytest.mark.filterwarnings("ignore:quantized..linear_dynamic:UserWarning")
def test_layers_without_gradients_are_told_and_not_zero_maps() -> None:
    layers = [nn.Conv2d(4, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    plain = nn.Sequential(*layers, nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 5)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would like another tool for it
        try:
            quantized = torch.ao.quantization.quantize_dynamic(plain, {nn.Linear})
        except RuntimeError as error:  # no kernels of whole numbers on this machine
            pytest.skip(str(error))
    for name in USUAL:
        with pytest.raises((MethodError, LayerError), match="does not depend on"):
            explain(name, quantized, image())
