"""Passes use the current weights, in the values and gradients of stock torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import vector_to_parameters
from torch.nn.utils.parametrizations import weight_norm

from networks import image, make, relative, seeded
from neuroxai.core.engine.converted_weights import ConvertedWeights
from neuroxai.core.engine.fast_path import is_fast, is_supported, run_fast
from neuroxai.core.engine.settings import PassSettings, stock_torch
from neuroxai.core.probe.checkpointing import checkpointed
from neuroxai.core.probe.requests import InputGradient, LayerMap, Request
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.target import Class

pytestmark = pytest.mark.skipif(not is_supported(), reason="the kernels are not verified here")


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("transposed", [False, True])
def test_computed_weights_are_dropped_after_their_pass(transposed: bool) -> None:
    layer = (nn.ConvTranspose3d if transposed else nn.Conv3d)(3, 6, 3, padding=1)
    network, x = (
        nn.Sequential(weight_norm(layer), nn.ReLU(), nn.Conv3d(6, 2, 1)),
        drawn(2, 3, 4, 6, 5),
    )
    network.requires_grad_(False).eval()
    weights = ConvertedWeights()
    kept: list[int] = []
    for _ in range(4):
        leaf = x.clone().requires_grad_()
        total = run_fast(network, leaf, network, weights=weights).sum()
        (found,) = torch.autograd.grad(total, leaf)
        kept.append(len(weights))
    assert len(set(kept)) == 1
    leaf = x.clone().requires_grad_()
    with stock_torch():
        (expected,) = torch.autograd.grad(network(leaf).sum(), leaf)
    assert relative(found, expected) <= 1e-5


def test_replaced_weight_data_is_converted_again() -> None:
    weights, weight = ConvertedWeights(), torch.rand(3, 2, 1, 2, 3)
    weights.forward(weight)
    weights.backward(weight, 1)
    other = torch.rand(3, 2, 1, 2, 3)
    weight.data = other
    assert torch.equal(weights.forward(weight), other)
    assert torch.equal(weights.backward(weight, 1)[:2], other.transpose(0, 1).flip(2, 3, 4))


class Plain(nn.Module):
    """A convolution, a batch norm, a rectifier in place, a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(2, 3, 3, padding=1)
        self.norm = nn.BatchNorm3d(3)
        self.act = nn.ReLU(inplace=True)
        self.last = nn.Conv3d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.act(self.norm(self.first(x))))
        return out


class TwoBlocks(Plain):
    """The convolution and its norm belong to different blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Identity(), self.first)
        self.rest = nn.Sequential(self.norm, self.act, self.last)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rest(self.enter(x))
        return out


def plain_gradient(network: nn.Module, x: Tensor) -> Tensor:
    probe = WholeVolume(network, Class(0))
    with probe.at(x, [InputGradient()]):
        return probe.gradient(x)


def assert_as_in_stock_torch(network: nn.Module, x: Tensor) -> None:
    found = plain_gradient(network, x)
    with stock_torch():
        expected = plain_gradient(network, x)
    assert is_fast(x, network), "a fallback would prove nothing"
    assert relative(found, expected) <= 1e-5


def test_checkpointed_blocks_give_the_gradient_of_stock_torch() -> None:
    network, x = seeded(6, TwoBlocks), drawn(1, 2, 12, 10, 14)
    assert_as_in_stock_torch(network, x)
    probe = WholeVolume(network, Class(0))
    probe.checkpointed = True
    with probe.at(x, [InputGradient()]), checkpointed(nn.Module()):
        found = probe.gradient(x)
    with stock_torch():
        assert relative(found, plain_gradient(network, x)) <= 1e-5


def test_hooks_see_the_activations_of_stock_torch() -> None:
    network, x = make("segmenter", 3), image(3)
    seen: list[Tensor] = []
    handle = network.get_submodule("enter").register_forward_hook(
        lambda module, inputs, output: seen.append(output.detach().clone())
    )
    plain_gradient(network, x)
    with stock_torch():
        plain_gradient(network, x)
    handle.remove()
    assert relative(seen[0], seen[-1]) <= 1e-5
    requests: list[Request] = [InputGradient(), LayerMap("enter")]
    maps = []
    for settings in (PassSettings(fast_path=True), PassSettings(fast_path=False)):
        probe = WholeVolume(network, Class(2), settings=settings)
        with probe.at(x, requests):
            maps.append(probe.layer_map(x, "enter")[1])
    found, expected = maps
    assert relative(found, expected) <= 1e-4


def _learn(network: nn.Module, x: Tensor) -> None:
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1, fused=True)
    for _ in range(3):
        optimizer.zero_grad()
        network(x).square().sum().backward()
        optimizer.step()
    network.eval()


def _train_on_other_scans(network: nn.Module, x: Tensor) -> None:
    network.train()
    with torch.no_grad():
        for _ in range(20):
            network(5 + 3 * x)
    network.eval()


def _overwrite_data(network: nn.Module, _x: Tensor) -> None:
    network.get_parameter("first.weight").data.normal_()


def _take_a_vector(network: nn.Module, _x: Tensor) -> None:
    count = sum(parameter.numel() for parameter in network.parameters())
    vector_to_parameters(torch.linspace(-0.3, 0.4, count), network.parameters())


def _write_through_numpy(network: nn.Module, _x: Tensor) -> None:
    network.get_parameter("norm.weight").detach().numpy()[:] = [3.0, -1.0, 0.1]


def _replace_bias(network: nn.Module, _x: Tensor) -> None:
    convolution = network.get_submodule("first")
    assert isinstance(convolution, nn.Conv3d)
    assert convolution.bias is not None
    other = nn.Parameter(torch.tensor([3.0, -2.0, 1.0]))
    with torch.no_grad():
        while other._version < convolution.bias._version:  # the same version as the old bias
            other.mul_(1)
    convolution.bias = other


def _change_statistics(network: nn.Module, _x: Tensor) -> None:
    network.get_buffer("norm.running_var").mul_(4)


@pytest.mark.parametrize(
    "change",
    [
        _learn,
        _train_on_other_scans,
        _overwrite_data,
        _take_a_vector,
        _write_through_numpy,
        _replace_bias,
        _change_statistics,
    ],
)
def test_weights_changed_between_passes_are_used(
    change: Callable[[nn.Module, Tensor], None],
) -> None:
    network, x = seeded(7, Plain), drawn(1, 2, 12, 10, 14)
    before = plain_gradient(network, x)
    change(network, x)
    assert relative(plain_gradient(network, x), before) > 0.1
    assert_as_in_stock_torch(network, x)


def test_repeated_gradients_are_equal_to_the_bit() -> None:
    network, x = make("classifier", 3), image(3)
    assert torch.equal(plain_gradient(network, x), plain_gradient(network, x))
