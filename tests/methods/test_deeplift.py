"""DeepLIFT against captum's, its sum, and the networks it refuses."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from networks import BATCH, CLASSES, CONV, TASKS, Pooled, explain, image, make, relative, seeded
from neuroxai.core.errors import MethodError
from neuroxai.core.probe.sliding_window import SlidingWindow
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.probe.windows import Windows
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Class
from neuroxai.methods import make_method

DIMS = pytest.mark.parametrize("dims", [2, 3])
POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
UP = {2: "bilinear", 3: "trilinear"}


def theirs(network: nn.Module, x: Tensor, start: Tensor) -> Tensor:
    captum = pytest.importorskip("captum.attr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: Tensor = captum.DeepLift(Pooled(network)).attribute(x.clone(), start, target=2)
    return found.detach()


@pytest.mark.parametrize(("dims", "task"), list(itertools.product((2, 3), TASKS)))
@pytest.mark.parametrize("act", [nn.ReLU, nn.LeakyReLU, nn.Softplus, nn.Tanh, nn.ELU])
def test_as_captum(dims: int, task: str, act: type[nn.Module]) -> None:
    network, x = make(task, dims, act=act).double().eval(), image(dims).double()
    start = 0.3 * image(dims, seed=8).double()
    got = explain(make_method("deeplift", {"baseline": start}), network, x)
    assert relative(got.values, theirs(network, x, start)) <= 1e-10
    assert max(got.diagnostics["completeness_gap"]) <= 1e-8
    plain = explain("input_x_gradient", network, x).values
    assert relative(got.values, plain) > 0.05


class Pools(nn.Module):
    """A max pooling between convolutions, upsampled again, as in a U-Net."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.enter, self.act = CONV[dims](4, 6, 3, padding=1), nn.ReLU()
        self.pool = POOL[dims](2)
        self.low, self.low_act = CONV[dims](6, 6, 3, padding=1), nn.ReLU()
        self.up = nn.Upsample(scale_factor=2, mode=UP[dims], align_corners=False)
        self.exit = CONV[dims](12, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.act(self.enter(x))
        up = self.up(self.low_act(self.low(self.pool(skip))))
        out: Tensor = self.exit(torch.cat([up, skip], dim=1))
        return out


@DIMS
def test_max_pooling_in_a_network_adds_up(dims: int) -> None:
    """Captum's maps of this network miss the change of the target by its own size."""
    network = seeded(3, lambda: Pools(dims)).double().eval()
    x, start = image(dims).double(), 0.5 * image(dims, seed=8).double()
    got = explain(make_method("deeplift", {"baseline": start}), network, x)
    assert max(got.diagnostics["completeness_gap"]) <= 1e-12


@DIMS
def test_max_pooling_window_by_window(dims: int) -> None:
    """The rise from the baseline goes to the image's position, the rest to the baseline's."""
    network = nn.Sequential(POOL[dims](2), CONV[dims](4, CLASSES, 1)).double()
    x, start = image(dims).double(), 0.5 * image(dims, seed=8).double()
    weights = network[1].weight[2].detach().flatten()  # type: ignore[index]
    cells = [n // 2 for n in x.shape[2:]]
    expected = torch.zeros_like(x)
    for b, c, *cell in itertools.product(range(BATCH), range(4), *map(range, cells)):
        box = tuple(slice(2 * i, 2 * i + 2) for i in cell)
        now, before = x[b, c][box], start[b, c][box]
        larger = max(float(now.max()), float(before.max()))
        share = float(weights[c]) / float(np.prod(cells))
        flat = torch.zeros(now.numel(), dtype=torch.double)
        flat[int(now.argmax())] += share * (larger - float(before.max()))
        flat[int(before.argmax())] += share * (float(now.max()) - larger)
        expected[b, c][box] = flat.reshape(now.shape)
    got = explain(make_method("deeplift", {"baseline": start}), network, x)
    assert relative(got.values, expected) <= 1e-12


class Residual(nn.Module):
    """One ReLU module used twice, functions, in-place calls and a sum: captum cannot do these."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.one, self.two = CONV[dims](4, 6, 3, padding=1), CONV[dims](6, 6, 3, padding=1)
        self.out, self.act = CONV[dims](6, CLASSES, 1), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        first = self.act(self.one(x))
        second = self.act(self.two(first) / 2 + 0.1)
        second = second + first
        out: Tensor = self.out(torch.relu(second - 0.2).sigmoid())
        return out


@DIMS
@pytest.mark.parametrize("way", ["whole", "windows", "checkpointed"])
def test_the_sum_is_the_change_of_the_target(dims: int, way: str) -> None:
    network = seeded(3, lambda: Residual(dims)).double()
    x, start = image(dims).double(), 0.5 * image(dims, seed=8).double()
    probe: WholeVolume | SlidingWindow = WholeVolume(network, Class(1))
    if way == "windows":
        size = (4, 6, 8)[-dims:]
        windows = Windows(size, torch.ones(size).double(), overlap=0.5)
        probe = SlidingWindow(network, Class(1), windows=windows)
    probe.checkpointed = way == "checkpointed"
    got = make_method("deeplift", {"baseline": start}).explain(probe, x)
    assert max(got.diagnostics["completeness_gap"]) <= 1e-8
    assert got.notes == ()


def test_a_probability_has_a_gap_that_is_noted() -> None:
    outputs = Outputs(activation="softmax")
    target = Class(2, scale="probability")
    got = explain("deeplift", make("classifier"), image(), target, outputs)
    assert any("not linear in the network's output" in note for note in got.notes)
    assert max(got.diagnostics["completeness_gap"]) > 1e-3


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.sigmoid()


class Attends(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).softmax(dim=2).reshape(x.shape)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (lambda: nn.InstanceNorm2d(6), "instance_norm"),
        (lambda: nn.GroupNorm(2, 6), "group_norm"),
        (Gate, "mul"),
        (Attends, "softmax"),
        (lambda: nn.BatchNorm2d(6, track_running_stats=False), "batch|samples of a batch"),
    ],
    ids=["instance norm", "group norm", "gate", "softmax", "batch norm"],
)
def test_an_operation_without_a_rule_is_named(layer: Callable[[], nn.Module], says: str) -> None:
    network = seeded(1, lambda: nn.Sequential(nn.Conv2d(4, 6, 3), layer(), nn.Conv2d(6, 5, 1)))
    with pytest.raises(MethodError, match=says):
        explain("deeplift", network, image())
    # Another method of the same pass is not refused with it.
    probe = WholeVolume(network, Class(1))
    assert make_method("vanilla_gradient").explain(probe, image()).values.shape[0] == BATCH
