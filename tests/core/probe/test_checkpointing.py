"""Blocks run twice: the same maps, less kept, the network left as found."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from networks import USUAL, image, quick, quick_methods, relative, seeded, snapshot
from neuroxai.core.engine.fast_path import is_fast, is_supported, run_fast
from neuroxai.core.engine.footprint import footprint
from neuroxai.core.engine.settings import PassSettings, stock_torch
from neuroxai.core.layers.reduction import MEAN_GRADIENT_WEIGHTS
from neuroxai.core.probe.checkpointing import blocks, checkpointed
from neuroxai.core.probe.requests import InputGradient, LayerMap, Request
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.rules.guided import GUIDED
from neuroxai.core.target.target import Class
from neuroxai.methods.deconvolution import Deconvnet
from neuroxai.methods.hirescam import ActivationTimesGradient
from neuroxai.models.deepseg import DeepSeg


class Residual(nn.Module):
    """Works in place on what it is given, uses one part twice, gives a pair now and then."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
        norm = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dims]
        self.enter = nn.Sequential(conv(4, 6, 3, padding=1), nn.ReLU(inplace=True))
        self.unit = nn.Sequential(nn.ReLU(inplace=True), conv(6, 6, 3, padding=1), norm(6))
        self.twin = self.unit
        self.pair = Pair(conv(6, 6, 1))
        self.exit = nn.Sequential(conv(6, 6, 3), nn.LeakyReLU(), conv(6, 5, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        x = x + self.unit(x.clone())
        x = x + self.twin(x.clone())
        first, second = self.pair(x)
        out: Tensor = self.exit(first * second)
        return out


class Pair(nn.Module):
    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.conv(x), x


def probes(
    network: nn.Module, settings: PassSettings | None = None
) -> tuple[WholeVolume, WholeVolume]:
    plain, lean = (WholeVolume(network, Class(2), settings=settings) for _ in range(2))
    lean.checkpointed = True
    return plain, lean


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", USUAL)
def test_every_method_gives_the_same_map(name: str, dims: int) -> None:
    network, x = seeded(3, lambda: Residual(dims)), image(dims)
    before = snapshot(network)
    plain, lean = probes(network)
    expected, found = (quick(name).explain(probe, x, seed=4) for probe in (plain, lean))
    assert relative(found.values, expected.values) <= 1e-5
    assert found.layer == expected.layer
    assert snapshot(network) == before
    assert not any("forward" in vars(module) for module in network.modules())


@pytest.mark.parametrize("stock", [False, True], ids=["fast", "stock"])
def test_all_questions_at_once_on_deepseg(stock: bool) -> None:
    torch.manual_seed(1)
    network, x = DeepSeg(4, 5).eval(), torch.randn(1, 4, 32, 64, 32)
    gradients = [InputGradient(), InputGradient(GUIDED), InputGradient(Deconvnet())]
    maps = [
        LayerMap(layer, reduction)
        for layer in ("auto", "encoder.1.conv2")
        for reduction in (MEAN_GRADIENT_WEIGHTS, ActivationTimesGradient())
    ]
    requests: list[Request] = [*gradients, *maps]
    answers = []
    for probe in probes(network, PassSettings(fast_path=not stock)):
        with probe.at(x, requests):
            answers.append(probe.visit(x, requests))
    plain, lean = answers
    for gradient in gradients:
        assert relative(lean.gradient(gradient), plain.gradient(gradient)) <= 1e-5
    assert lean.activations == plain.activations
    for requested in maps:
        assert lean.layer_map(requested)[0] == plain.layer_map(requested)[0]
        assert relative(lean.layer_map(requested)[1], plain.layer_map(requested)[1]) <= 1e-5


def test_less_is_kept_in_stock_torch() -> None:
    x = torch.rand(1, 4, 64, 32, 48)
    unit = (nn.Sigmoid(), nn.Sigmoid(), nn.Tanh())
    network = nn.Sequential(
        *(nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), *unit) for _ in range(6))
    )

    def take(x: Tensor) -> None:
        leaf = x.detach().requires_grad_()
        torch.autograd.grad(network(leaf).sum(), leaf)

    def lean(x: Tensor) -> None:
        with checkpointed(network):
            take(x)

    with stock_torch():
        kept, less = footprint(take, x), footprint(lean, x)
    assert kept is not None
    assert less is not None
    assert less.per_voxel < 0.7 * kept.per_voxel


def test_blocks_hold_what_they_may() -> None:
    found = dict(blocks(DeepSeg(4, 5)))
    assert "encoder.0" in found or any(name.startswith("encoder") for name in found)
    assert all(len([m for m in part.modules() if isinstance(m, nn.Conv3d)]) <= 4
               for part in found.values())  # fmt: skip


def test_left_as_found_after_an_exception() -> None:
    network = seeded(3, lambda: Residual(2))
    with pytest.raises(FloatingPointError), checkpointed(network):
        raise FloatingPointError
    assert not any("forward" in vars(module) for module in network.modules())


@pytest.mark.skipif(not is_supported(), reason="stock torch only")
def test_the_fast_path_stays_fast_with_blocks_run_twice() -> None:
    network, x = seeded(3, lambda: Residual(3)), image(3)
    _, lean = probes(network)
    for method in quick_methods():
        method.explain(lean, x)
    assert is_fast(x, network)
    assert run_fast(network, x, lambda x: 1) == 1
