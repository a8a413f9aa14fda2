"""What a network keeps between calls: restored afterwards, and never made by a pass that plans."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import neuroxai as nx
from neuroxai.core.engine.network_state import NetworkState
from neuroxai.core.engine.untouched import untouched
from neuroxai.methods import make_method

SIZES = {2: (24, 40), 3: (16, 24, 20)}


def _convolutions(dims: int, channels: int) -> tuple[nn.Module, nn.Module]:
    kind = nn.Conv2d if dims == 2 else nn.Conv3d
    return kind(channels, 6, 3, padding=1), kind(6, 3, 1)


class Coordinates(nn.Module):
    """Builds a grid of coordinates on its first call, and may stretch it for other sizes."""

    def __init__(self, dims: int, *, stretches: bool, pools: bool) -> None:
        super().__init__()
        self.first, self.last = _convolutions(dims, 1 + dims)
        self.stretches, self.pools = stretches, pools
        self.grid: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.grid is None:
            axes = [torch.linspace(-1, 1, n) for n in x.shape[2:]]
            self.grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]
        grid = self.grid
        if self.stretches:
            grid = nn.functional.interpolate(grid, size=x.shape[2:], mode="nearest")
        both = torch.cat([x, grid.expand(len(x), *grid.shape[1:])], dim=1)
        out: Tensor = self.last(torch.relu(self.first(both)))
        return out.flatten(2).mean(dim=2) if self.pools else out


class Scaled(nn.Module):
    """Divides by the spread of the first image it sees, which it keeps in a dictionary."""

    def __init__(self, dims: int, *, pools: bool) -> None:
        super().__init__()
        self.first, self.last = _convolutions(dims, 1)
        self.pools = pools
        self.kept: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        features = self.first(x)
        if "scale" not in self.kept:
            self.kept["scale"] = features.detach().std()
        out: Tensor = self.last(torch.relu(features / self.kept["scale"]))
        return out.flatten(2).mean(dim=2) if self.pools else out


class Remembering(nn.Module):
    """Multiplies by the spread of the image of its first call, held in a buffer made on the fly."""

    def __init__(self, dims: int, *, pools: bool) -> None:
        super().__init__()
        self.first, self.last = _convolutions(dims, 1)
        self.pools = pools

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "spread"):
            self.register_buffer("spread", x.detach().std(), persistent=False)
        out: Tensor = self.last(torch.relu(self.first(x) * self.get_buffer("spread")))
        return out.flatten(2).mean(dim=2) if self.pools else out


MAKERS: dict[str, Callable[[int, bool], nn.Module]] = {
    "fixed grid": lambda dims, pools: Coordinates(dims, stretches=False, pools=pools),
    "stretched grid": lambda dims, pools: Coordinates(dims, stretches=True, pools=pools),
    "scale": lambda dims, pools: Scaled(dims, pools=pools),
    "buffer": lambda dims, pools: Remembering(dims, pools=pools),
}


def _made(name: str, dims: int, pools: bool) -> tuple[nn.Module, nn.Module, Tensor]:
    torch.manual_seed(3)
    network = MAKERS[name](dims, pools).eval()
    fresh = MAKERS[name](dims, pools).eval()
    fresh.load_state_dict(network.state_dict())
    return network, fresh, torch.randn(1, 1, *SIZES[dims])


def _score(output: Tensor) -> Tensor:
    return output[:, 1].mean()


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("pools", [False, True])
@pytest.mark.parametrize("memory", [None, "2GB"])
def test_the_first_call_is_the_image(name: str, dims: int, pools: bool, memory: str | None) -> None:
    """A new network, called once on the image by plain torch, is the oracle."""
    network, fresh, x = _made(name, dims, pools)
    before = {key: value for key, value in vars(network).items() if not key.startswith("_")}
    leaf = x.clone().requires_grad_()
    _score(fresh(leaf)).backward()
    assert leaf.grad is not None
    within = None if pools else "image"
    found = nx.explain(
        network, x, ["vanilla_gradient", "grad_cam"], 1, within=within, memory=memory
    )
    values = found["vanilla_gradient"].values
    assert torch.allclose(values, leaf.grad, rtol=1e-4, atol=1e-4 * float(leaf.grad.abs().max()))
    after = {key: value for key, value in vars(network).items() if not key.startswith("_")}
    assert after == before
    assert not hasattr(network, "spread")


@pytest.mark.parametrize("name", ["scale", "buffer"])
def test_the_passes_of_a_path_build_on_the_image(name: str) -> None:
    """The oracle integrates by hand, over a network whose first call was the image."""
    network, fresh, x = _made(name, 2, True)
    fresh(x)
    total = torch.zeros_like(x)
    for k in range(8):
        leaf = ((k + 0.5) / 8 * x).requires_grad_()
        (gradient,) = torch.autograd.grad(_score(fresh(leaf)), leaf)
        total += gradient / 8
    method = make_method(
        "integrated_gradients", {"steps": 8, "rule": "midpoint", "baseline": "zero"}
    )
    found = nx.explain(network, x, method, 1)["integrated_gradients"].values
    assert torch.allclose(found, x * total, rtol=1e-4, atol=1e-6)


class Holder(nn.Module):
    """Attributes of every kind that a forward pass may change."""

    def __init__(self) -> None:
        super().__init__()
        self.names = ["a"]
        self.deep: dict[str, Any] = {"list": [1, {"x": torch.zeros(2, 3)}]}
        self.array = np.arange(3.0)
        self.tensor = torch.zeros(3)
        self.object = SimpleNamespace(count=0, seen=[])
        self.removed = 5
        self.pair: tuple[Tensor, list[int]] = (torch.zeros(2), [])

    def change(self) -> None:
        self.names.append("b")
        self.deep["list"][1]["x"].add_(1)
        self.deep["more"] = []
        self.array[0] = 7
        self.tensor.fill_(4)
        self.object.count += 1
        self.object.seen.append(1)
        del self.removed
        self.pair[0].add_(1)
        self.pair[1].append(2)
        self.added = nn.Linear(2, 2)
        self.flag = True


def test_attributes_of_every_kind_are_restored() -> None:
    holder = Holder()
    tensor, names = holder.tensor, holder.names
    state = NetworkState(holder)
    assert not state.is_changed()
    with untouched(holder):
        holder.change()
        assert state.is_changed()
    assert not state.is_changed()
    assert holder.names == ["a"]
    assert holder.names is names
    assert list(holder.deep) == ["list"]
    assert not holder.deep["list"][1]["x"].any()
    assert holder.array.tolist() == [0, 1, 2]
    assert holder.tensor is tensor
    assert not tensor.any()
    assert (holder.object.count, holder.object.seen) == (0, [])
    assert holder.removed == 5
    assert not holder.pair[0].any()
    assert holder.pair[1] == []
    assert not hasattr(holder, "added")
    assert not hasattr(holder, "flag")
