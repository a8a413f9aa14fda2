"""A network is restored, whatever its forward pass changes."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
import torch
from torch import Tensor, nn

from networks import explain, image, make, relative, snapshot
from neuroxai.core.engine.untouched import untouched


class Stateful(nn.Module):
    """Counts in place, replaces a buffer and draws random numbers in every forward pass."""

    count: Tensor

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("last", torch.zeros(3))
        self.register_buffer("absent", None)

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.last = torch.rand(3)
        out: Tensor = self.inner(x)
        return out


@pytest.mark.parametrize("name", ["vanilla_gradient", "smoothgrad", "grad_cam"])
def test_buffers_and_the_random_state_are_restored(name: str) -> None:
    network = Stateful(make("segmenter"))
    before = snapshot(network)
    explain(name, network, image())
    assert snapshot(network) == before
    assert network.absent is None


class Adapted(nn.Module):
    """A convolution whose adapter is merged into its weights for evaluation, as LoRA's are."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(4, 5, 3)
        self.more = nn.Parameter(torch.full((5, 4, 3, 3), 1 / 3))
        self.merged = False

    def train(self, mode: bool = True) -> Adapted:
        super().train(mode)
        if mode == self.merged:
            self.inner.weight.data += -self.more.data if mode else self.more.data
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        weight = self.inner.weight if self.merged else self.inner.weight + self.more
        return nn.functional.conv2d(x, weight, self.inner.bias)


@pytest.mark.parametrize("training", [True, False])
def test_adapters_merged_for_evaluation_are_unmerged(training: bool) -> None:
    adapted = Adapted()
    network = nn.Sequential(adapted, nn.ReLU(), nn.Dropout()).train(training)
    network[2].eval()
    x, before = image(), snapshot(network)
    expected = network(x)
    explain("vanilla_gradient", network, x)
    assert snapshot(network) == before
    assert adapted.merged is not training
    assert torch.equal(network(x), expected)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_network_is_restored_after_an_exception(error: type[BaseException]) -> None:
    network = Stateful(make("classifier"))
    before = snapshot(network)

    def fail() -> None:
        with untouched(network) as lent:
            assert lent is network
            assert not any(module.training for module in lent.modules())
            assert not any(parameter.requires_grad for parameter in lent.parameters())
            lent(image())
            torch.rand(5)
            raise error

    with pytest.raises(error):
        fail()
    assert snapshot(network) == before


def test_nan_in_a_buffer_is_kept() -> None:
    network = nn.BatchNorm1d(3)
    assert network.running_mean is not None
    network.running_mean.fill_(torch.nan)
    before = snapshot(network)
    with untouched(network):
        pass
    assert snapshot(network) == before


def test_a_second_thread_waits_and_nesting_does_not() -> None:
    network, inside, done = nn.Linear(2, 2), threading.Event(), threading.Event()

    def work() -> None:
        inside.set()
        with untouched(network):
            done.set()

    thread = threading.Thread(target=work)
    with untouched(network), untouched(network):
        thread.start()
        assert inside.wait(5)
        assert not done.wait(0.1)
    assert done.wait(5)
    thread.join()
    assert network.training
    assert network.weight.requires_grad


def test_networks_are_not_kept_alive() -> None:
    network: nn.Module | None = make("segmenter")
    assert network is not None
    explain("integrated_gradients", network, image())
    known = weakref.ref(network)
    del network
    gc.collect()
    assert known() is None


class Constrained(nn.Module):
    """Clips its weights in every forward pass."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.inner = nn.Conv3d(4, 3, 1)
        self.register_buffer("grid", None)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.inner.weight
        if self.how == "data":
            weight.data = torch.renorm(weight.data, 2, 0, 0.1)
        elif self.how == "data in place":
            weight.data.copy_(torch.renorm(weight.data, 2, 0, 0.1))
        elif self.how == "clamped":
            with torch.no_grad():
                weight.clamp_(-0.05, 0.05)
        elif self.how == "replaced":
            self.inner.weight = nn.Parameter(weight.detach().clamp(-0.05, 0.05))
        elif self.how == "a buffer filled":
            self.grid = torch.ones(3)
        elif self.how == "a buffer more":
            self.register_buffer("more", torch.ones(3), persistent=False)
        out: Tensor = self.inner(x)
        return out


@pytest.mark.parametrize(
    "how",
    ["data", "data in place", "clamped", "replaced", "a buffer filled", "a buffer more"],
)
def test_weights_written_in_a_forward_pass_are_restored(how: str) -> None:
    network = Constrained(how)
    before, keys = snapshot(network), list(network.state_dict())
    found = explain("vanilla_gradient", network, image(3)).values
    assert snapshot(network) == before
    assert list(network.state_dict()) == keys
    network(image(3))  # bounds the weights: of those the map was
    weight = network.inner.weight.detach()[2]
    assert relative(found, (weight / found[0, 0].numel()).expand_as(found)) <= 1e-6


def test_networks_that_share_weights_wait_for_each_other() -> None:
    shared = make("segmenter").train()
    before = snapshot(shared)
    networks = [nn.Sequential(shared, last) for last in (nn.Identity(), nn.Softmax(dim=1))]

    def work(network: nn.Module) -> None:
        for _ in range(3):
            explain("vanilla_gradient", network, image())

    threads = [threading.Thread(target=work, args=[network]) for network in networks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert snapshot(shared) == before
