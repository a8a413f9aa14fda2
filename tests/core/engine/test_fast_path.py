"""The fast path: when it applies, when it falls back, and maps as in stock torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from networks import SHAPES, TASKS, explain, image, make, relative, seeded
from neuroxai.core.engine.fast_path import FastPath, is_fast, is_supported, run_fast
from neuroxai.core.engine.settings import STOCK_TORCH_VARIABLE, stock_torch
from neuroxai.core.probe.requests import InputGradient
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.target import Class
from neuroxai.inspection.information_flow import information_flow
from neuroxai.methods import METHODS

pytestmark = pytest.mark.skipif(not is_supported(), reason="the kernels are not verified here")

SHAPE = (2, 6, 5, 7, 9)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_other_types_devices_and_trained_weights_run_in_stock_torch() -> None:
    network = nn.Identity()
    five = torch.zeros(1, 2, 4, 5, 6)
    assert is_fast(five, network)
    assert not is_fast(five.double(), network)
    assert not is_fast(torch.zeros(1, 2, 4, 5), network)
    assert not is_fast(torch.zeros(1, 2, 4, 5, 6, device="meta"), network)
    weight = drawn(8, 6, 3, 3, 3).requires_grad_()
    with FastPath():
        y = functional.conv3d(drawn(*SHAPE), weight)
    (gradient,) = torch.autograd.grad(y.sum(), weight)
    assert gradient.shape == weight.shape


@pytest.mark.parametrize(
    ("release", "verified"),
    [("2.13.0", True), ("2.13.0+cpu", True), ("2.13.1", False), ("2.12.1", False), ("3.0", False)],
)
def test_other_releases_of_torch_run_in_stock_torch(
    monkeypatch: pytest.MonkeyPatch, release: str, verified: bool
) -> None:
    monkeypatch.setattr(torch, "__version__", release)
    assert is_fast(torch.zeros(1, 2, 4, 5, 6), nn.Identity()) is verified


def test_stock_torch_can_be_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    x, network = torch.zeros(1, 2, 4, 5, 6), nn.Identity()
    with stock_torch():
        assert not is_fast(x, network)
    assert is_fast(x, network)
    monkeypatch.setenv(STOCK_TORCH_VARIABLE, "1")
    assert not is_fast(x, network)
    monkeypatch.setenv(STOCK_TORCH_VARIABLE, "0")
    assert is_fast(x, network)


PASSES: list[str] = []
"""The passes through :class:`Viewing`; a counter in the module would be restored."""


class Viewing(nn.Module):
    """Depends on the memory layout of a convolution's output."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv = nn.Conv3d(2, 3, 3, padding=1)
        self.head = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        PASSES.append(self.how)
        y = self.conv(x)
        if self.how == "view":
            rows = y.view(y.shape[0], -1).reshape(y.shape[0], 3, -1)
        elif self.how == "strided":
            rows = y.as_strided((y.shape[0], 3, 120), (360, 120, 1))
        elif self.how == "in place":
            y.view(-1).mul_(2)
            rows = y.flatten(2)
        else:
            rows = y.permute(0, 2, 3, 4, 1).reshape(y.shape[0], -1, 3).mT
        out: Tensor = self.head(rows.square().mean(dim=2))
        return out


@pytest.mark.parametrize("how", ["view", "strided", "in place", "reshape"])
def test_networks_that_depend_on_the_layout_fall_back_to_stock_torch(how: str) -> None:
    network = seeded(0, lambda: Viewing(how))
    x = drawn(2, 2, 4, 5, 6)
    with stock_torch():
        expected = explain("vanilla_gradient", network, x)
    PASSES.clear()
    first = explain("vanilla_gradient", network, x)
    tried = len(PASSES)
    second = explain("vanilla_gradient", network, x)
    assert relative(first.values, expected.values) <= 1e-5
    assert relative(second.values, expected.values) <= 1e-5
    depends = how != "reshape"
    assert is_fast(x, network) is not depends
    assert tried == (2 if depends else 1)
    assert len(PASSES) == tried + 1


def test_failed_passes_are_not_counted() -> None:
    network, x = seeded(0, lambda: Viewing("view")), drawn(2, 2, 4, 5, 6)
    probe = WholeVolume(network, Class(1))
    with probe.at(x, [InputGradient()]):
        probe.gradient(x)
    assert (probe.passes.forward, probe.passes.backward, probe.passes.gradients) == (1, 1, 2)


def test_errors_of_the_network_itself_are_raised() -> None:
    class Faulty(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("an error of the network")

    with pytest.raises(RuntimeError, match="an error of the network"):
        run_fast(Faulty(), drawn(*SHAPE), Faulty())


def test_networks_with_checkpoints_fall_back_to_stock_torch() -> None:
    """Segments rerun outside of the mode, and torch notices that other tensors are saved."""

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Conv3d(6, 4, 3), nn.BatchNorm3d(4), nn.ReLU())
            self.exit = nn.Conv3d(4, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.exit(checkpoint(self.inner, x, use_reentrant=False))
            return out

    network, x = seeded(1, Checkpointed), drawn(*SHAPE)
    for name in ("vanilla_gradient", "guided_backprop"):
        with stock_torch():
            expected = explain(name, network, x)
        assert relative(explain(name, network, x).values, expected.values) <= 1e-5
    assert not is_fast(x, network)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("task", TASKS)
def test_maps_of_all_methods_are_those_of_stock_torch(name: str, task: str) -> None:
    network, x = make(task, 3), image(3)
    assert x.dtype == torch.float32
    found = explain(name, network, x)
    with stock_torch():
        expected = explain(name, network, x)
    assert is_fast(x, network), "a fallback would prove nothing"
    assert relative(found.values, expected.values) <= 0.01
    assert found.score == pytest.approx(expected.score, rel=1e-4)
    assert found.values.is_contiguous()


def test_maps_of_all_layers_are_those_of_stock_torch() -> None:
    network, x = make("segmenter", 3), image(3)
    found = information_flow(network, x, [Class(0), Class(2)])
    with stock_torch():
        expected = information_flow(network, x, [Class(0), Class(2)])
    assert found.layers == expected.layers
    for got, want in zip(found.targets, expected.targets, strict=True):
        for layer in want.maps:
            assert relative(got.maps[layer], want.maps[layer]) <= 0.01


@pytest.mark.parametrize("dims", [2, 3])
def test_shapes_of_this_suite_are_not_cubic(dims: int) -> None:
    assert len(set(SHAPES[dims])) == dims
