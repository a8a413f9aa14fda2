"""Norms folded into convolutions: only where nothing else sees the convolution's result."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import vector_to_parameters

from networks import image, make, relative, seeded
from neuroxai.core.engine import fast_path, folding
from neuroxai.core.engine.fast_path import run_fast, stock_torch
from neuroxai.core.engine.untouched import untouched
from neuroxai.core.probe.answers import Asks
from neuroxai.core.probe.checkpointing import checkpointed
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.target import Class
from neuroxai.models.deepseg import DeepSeg

pytestmark = pytest.mark.skipif(not fast_path._pays(), reason="left to stock torch here")

SHAPE = (1, 2, 12, 10, 14)


class Plain(nn.Module):
    """A convolution, a norm, a rectifier, a convolution; variants do what forbids folding."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(2, 3, 3, padding=1)
        self.norm = nn.BatchNorm3d(3)
        self.act = nn.ReLU(inplace=True)
        self.last = nn.Conv3d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.act(self.norm(self.first(x))))
        return out


class UsedBeside(Plain):
    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        out: Tensor = self.last(self.act(self.norm(y)) + y)
        return out


class Returned(Plain):
    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        self.last(self.act(self.norm(y)))
        out: Tensor = y
        return out


class UsedTwice(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.BatchNorm3d(3)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.norm(self.first(x)), self.other(self.first(x + 1))
        out: Tensor = self.last(self.act(one) + two)
        return out


class OwnStatistics(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(3, track_running_stats=False)


class Changing(Plain):
    """Looks at the convolution's result beside the norm, but only on an image of some size."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        beside = y.mean() if x[0, 0].numel() > 40**3 else 0
        out: Tensor = self.last(self.act(self.norm(y))) + beside
        return out


class Returning(Plain):
    """Takes the convolution's result up again behind the norm, but only on an image of some size.

    It is rectified in place on the way, so that a result that is handed on shows it.
    """

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z = functional.relu(self.norm(y), inplace=True)
        out: Tensor = self.last(z + y if x[0, 0].numel() > 40**3 else z)
        return out


class Skipping(Plain):
    """Leaves the norm out, but only on an image of some size."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if x[0, 0].numel() <= 40**3:
            y = self.norm(y)
        out: Tensor = self.last(y) if y.requires_grad else y.sum(dim=1, keepdim=True)
        return out


class Apart(Plain):
    """Convolution and norm lie in blocks of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Identity(), self.first)
        self.rest = nn.Sequential(self.norm, self.act, self.last)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rest(self.enter(x))
        return out


def gradient(network: nn.Module, x: Tensor, channel: int = 0) -> Tensor:
    probe = WholeVolume(network, Class(channel))
    with probe.at(x, Asks(gradient=True)):
        return probe.gradient(x)


def folded(network: nn.Module) -> int:
    return len(folding._known.get(network, {}))


def as_in_stock_torch(network: nn.Module, x: Tensor) -> None:
    found = gradient(network, x)
    with stock_torch():
        expected = gradient(network, x)
    assert relative(found, expected) <= 1e-5


@pytest.mark.parametrize(
    ("build", "count"),
    [(Plain, 1), (UsedBeside, 0), (Returned, 0), (UsedTwice, 0), (OwnStatistics, 0), (Apart, 1)],
)
def test_what_is_folded(build: Callable[[], nn.Module], count: int) -> None:
    network = build() if build is OwnStatistics else seeded(3, build)
    as_in_stock_torch(network, image_of(SHAPE))
    assert folded(network) == count


def image_of(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_the_papers_network_has_every_norm_folded() -> None:
    network = seeded(1, lambda: DeepSeg(2, 3, filters=4, depth=3))
    as_in_stock_torch(network, image_of((1, 2, 24, 40, 32)))
    assert folded(network) == sum(isinstance(m, nn.BatchNorm3d) for m in network.modules()) == 15


def test_the_arithmetic() -> None:
    network = seeded(5, Plain).eval()
    x = image_of(SHAPE)
    with untouched(network), torch.no_grad():
        expected = network.double()(x.double())
        network.float()
        found = run_fast(network, x, network)
        assert folded(network) == 1
        assert relative(found, expected) <= 2e-6


@pytest.mark.parametrize("build", [Changing, Returning, Skipping])
def test_a_network_that_does_something_else_later_is_run_without(
    build: Callable[[], nn.Module],
) -> None:
    network = seeded(4, build)
    small, large = image_of(SHAPE), image_of((1, 2, 48, 40, 44))
    as_in_stock_torch(network, small)
    assert folded(network) == 1
    as_in_stock_torch(network, large)
    assert folded(network) == 0
    as_in_stock_torch(network, small)


def test_blocks_that_are_run_twice_between_convolution_and_norm() -> None:
    network, x = seeded(6, Apart), image_of(SHAPE)
    assert folded(network) == 0
    as_in_stock_torch(network, x)
    assert folded(network) == 1
    probe = WholeVolume(network, Class(0))
    probe.checkpointed = True
    with probe.at(x, Asks(gradient=True)), checkpointed(nn.Module()):
        found = probe.gradient(x)
    with stock_torch():
        assert relative(found, gradient(network, x)) <= 1e-5


def test_who_looks_at_a_convolution_sees_what_it_gives() -> None:
    network, x = make("segmenter", 3), image(3)
    as_in_stock_torch(network, x)
    assert folded(network) == 1
    seen: list[Tensor] = []
    handle = network.get_submodule("enter").register_forward_hook(
        lambda module, inputs, output: seen.append(output.detach().clone())
    )
    gradient(network, x)
    with stock_torch():
        gradient(network, x)
    handle.remove()
    assert relative(seen[0], seen[-1]) <= 1e-5
    probe = WholeVolume(network, Class(2))
    asks = Asks(gradient=True, layers=frozenset(["enter"]))
    with probe.at(x, asks):
        _, found = probe.layer_map(x, "enter")
    with stock_torch(), probe.at(x, asks):
        _, expected = probe.layer_map(x, "enter")
    assert relative(found, expected) <= 1e-4


def test_new_statistics_are_folded_anew() -> None:
    network, x = seeded(7, Plain), image_of(SHAPE)
    before = gradient(network, x)
    assert folded(network) == 1
    network.get_buffer("norm.running_var").mul_(4)
    assert relative(gradient(network, x), before) > 0.3
    as_in_stock_torch(network, x)


def test_a_new_bias_is_folded_anew() -> None:
    network, x = seeded(9, Plain), image_of(SHAPE)
    as_in_stock_torch(network, x)
    assert folded(network) == 1
    convolution = network.get_submodule("first")
    assert isinstance(convolution, nn.Conv3d)
    assert convolution.bias is not None
    other = nn.Parameter(torch.tensor([3.0, -2.0, 1.0]))
    with torch.no_grad():
        while other._version < convolution.bias._version:  # so that it looks as old as the first
            other.mul_(1)
    convolution.bias = other
    as_in_stock_torch(network, x)


def _learn(network: nn.Module, x: Tensor) -> None:
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1, fused=True)
    for _ in range(3):
        optimizer.zero_grad()
        network(x).square().sum().backward()
        optimizer.step()
    network.eval()


def _meet_other_scans(network: nn.Module, x: Tensor) -> None:
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


@pytest.mark.parametrize(
    "change", [_learn, _meet_other_scans, _overwrite_data, _take_a_vector, _write_through_numpy]
)
def test_weights_that_change_without_a_trace_are_folded_anew(
    change: Callable[[nn.Module, Tensor], None],
) -> None:
    network, x = seeded(7, Plain), image_of(SHAPE)
    before = gradient(network, x)
    assert folded(network) == 1
    change(network, x)
    assert relative(gradient(network, x), before) > 0.1
    as_in_stock_torch(network, x)


def test_a_network_that_still_learns_is_not_looked_at() -> None:
    network, x = seeded(8, Plain), image_of(SHAPE)
    leaf = x.clone().requires_grad_()
    run_fast(network, leaf, network).sum().backward()
    assert network not in folding._known
    as_in_stock_torch(network, x)
    assert folded(network) == 1


def test_repeats_are_equal_to_the_bit_from_the_first_on() -> None:
    network, x = make("classifier", 3), image(3)
    first = gradient(network, x, 2)
    assert folded(network) == 1
    assert torch.equal(first, gradient(network, x, 2))
