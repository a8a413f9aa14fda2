"""Relevance propagation against loops over voxels, its sum, and the networks it refuses."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from networks import CLASSES, CONV, NORM, explain, image, make, relative, seeded
from neuroxai.core.errors import MethodError
from neuroxai.core.probe.sliding_window import SlidingWindow
from neuroxai.core.probe.windows import Windows
from neuroxai.core.target.target import Class
from neuroxai.methods import make_method

DIMS = pytest.mark.parametrize("dims", [2, 3])
EPSILON = 1e-6
Array = Any


class Net(nn.Module):
    """A small U-Net: two levels, batch norms, a skip by concatenation, a residual sum."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        conv, norm = CONV[dims], NORM[dims]
        self.enter, self.enter_norm = conv(2, 3, 3, padding=1), norm(3)
        self.down, self.down_norm = conv(3, 4, 3, stride=2, padding=1, bias=False), norm(4)
        self.low = conv(4, 4, 3, padding=1)
        self.join = conv(7, 3, 3, padding=1)
        self.exit = conv(3, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.enter_norm(self.enter(x)).relu()
        low = self.down_norm(self.down(skip)).relu_()
        low = low + nn.functional.leaky_relu(self.low(low), 0.2)
        up = nn.functional.interpolate(low, size=skip.shape[2:], mode="nearest")
        out: Tensor = self.exit(self.join(torch.cat([up, skip], dim=1)).relu())
        return out


def net(dims: int) -> Net:
    network = seeded(8, lambda: Net(dims)).double().eval()
    assert isinstance(network, Net)
    return network


def stable(total: Any) -> Any:
    return total + (EPSILON if total >= 0 else -EPSILON)


def merged(conv: Any, norm: Any = None) -> tuple[Array, Array]:
    """Weight and bias of a convolution with the norm behind it."""
    weight = conv.weight.detach().numpy()
    bias = np.zeros(len(weight)) if conv.bias is None else conv.bias.detach().numpy()
    if norm is not None:
        gain, shift, mean, var = (
            getattr(norm, name).detach().numpy()
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / np.sqrt(var + norm.eps)
        weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        bias = (bias - mean) * scale + shift
    return weight, bias


def spread(
    a: Array, relevance: Array, weight: Array, bias: Array, stride: int, *, flat: bool = False
) -> Array:
    """Share the relevance of each output of a convolution, one output voxel at a time."""
    out, pad = np.zeros_like(a), weight.shape[2] // 2
    for j, *cell in np.ndindex(*relevance.shape):
        reads: list[tuple[tuple[int, ...], float]] = []
        for c, *offset in np.ndindex(*weight.shape[1:]):
            at = [stride * v + o - pad for v, o in zip(cell, offset, strict=True)]
            if any(not 0 <= p < n for p, n in zip(at, a.shape[1:], strict=True)):
                continue
            share = a[(c, *at)] * weight[(j, c, *offset)]
            reads.append(((c, *at), 1.0 if flat else max(share, 0.0)))
        total = sum(share for _, share in reads) + (0.0 if flat else max(bias[j], 0.0))
        for place, share in reads:
            out[place] += share / stable(total) * relevance[(j, *cell)]
    return out


def by_hand(network: Net, x: Tensor, target: int) -> Array:
    """The composite on the network above, layer by layer, for one sample."""
    with torch.no_grad():
        skip = network.enter_norm(network.enter(x)).relu()
        down = network.down_norm(network.down(skip)).relu()
        branch = nn.functional.leaky_relu(network.low(down), 0.2)
        low = down + branch
        up = nn.functional.interpolate(low, size=skip.shape[2:], mode="nearest")
        joined = torch.cat([up, skip], dim=1)
        last = network.join(joined).relu()
        out = network.exit(last)
    arrays = [each[0].numpy() for each in (x, skip, down, branch, low, joined, last, out)]
    x0, skip0, down0, branch0, low0, joined0, last0, out0 = arrays
    relevance = np.zeros_like(out0)
    relevance[target] = out0[target] / out0[target].size
    r_last = spread(last0, relevance, *merged(network.exit), 1)
    r_joined = spread(joined0, r_last, *merged(network.join), 1)
    r_up, r_skip = r_joined[:4], r_joined[4:].copy()
    r_low = np.zeros_like(low0)
    for c, *cell in np.ndindex(*r_up.shape):
        source = [v * n // m for v, n, m in zip(cell, low0.shape[1:], r_up.shape[1:], strict=True)]
        value = low0[(c, *source)]
        r_low[(c, *source)] += value / stable(value) * r_up[(c, *cell)]
    r_down, r_branch = np.zeros_like(low0), np.zeros_like(low0)
    for place in np.ndindex(*low0.shape):
        total = stable(low0[place])
        r_down[place] = down0[place] / total * r_low[place]
        r_branch[place] = branch0[place] / total * r_low[place]
    r_down += spread(down0, r_branch, *merged(network.low), 1)
    r_skip += spread(skip0, r_down, *merged(network.down, network.down_norm), 2)
    return spread(x0, r_skip, *merged(network.enter, network.enter_norm), 1, flat=True)


@DIMS
def test_loops_over_voxels(dims: int) -> None:
    network, x = net(dims), image(dims, modalities=2).double()
    got = explain("lrp", network, x, Class(1))
    expected = torch.from_numpy(np.stack([by_hand(network, each[None], 1) for each in x]))
    assert relative(got.values, expected) <= 1e-9
    assert relative(got.values, explain("input_x_gradient", network, x, Class(1)).values) > 0.1
    assert any("2508.02560" in note for note in got.notes) is (dims == 3)


def without_bias(dims: int) -> Any:
    """Its output weights are positive: z-plus loses the relevance of an output without any."""
    conv = CONV[dims]
    network: Any = seeded(
        2,
        lambda: nn.Sequential(
            conv(4, 6, 3, padding=1, bias=False), nn.ReLU(), conv(6, 6, 3, padding=1, bias=False),
            nn.ReLU(), conv(6, CLASSES, 1, bias=False),
        ),
    ).double()  # fmt: skip
    with torch.no_grad():
        network[4].weight.abs_()
    return network


@DIMS
@pytest.mark.parametrize("way", ["whole", "windows"])
def test_relevance_is_conserved_without_biases(dims: int, way: str) -> None:
    network, x = without_bias(dims), image(dims).double()
    got = explain("lrp", network, x, Class(1))
    if way == "windows":
        size = SIZES[dims]
        windows = Windows(size, torch.ones(size).double(), overlap=0.5)
        got = make_method("lrp").explain(SlidingWindow(network, Class(1), windows=windows), x)
    assert got.diagnostics["relevance_sum"] == pytest.approx(list(got.score), rel=1e-3)


SIZES = {2: (10, 14), 3: (4, 6, 8)}


@DIMS
def test_a_linear_head_has_the_epsilon_rule(dims: int) -> None:
    """Behind a mean the head shares z_k = w_k a_k; the rest of the network is one convolution."""
    network, x = make("classifier", dims).double().eval(), image(dims).double()
    seen: list[Tensor] = []
    handle = network.get_submodule("third_act").register_forward_hook(
        lambda module, inputs, output: seen.append(output.detach())
    )
    with torch.no_grad():
        network(x)
    handle.remove()
    tail: Any = nn.Sequential(nn.AdaptiveAvgPool2d(1) if dims == 2 else nn.AdaptiveAvgPool3d(1),
                         nn.Flatten(), network.get_submodule("head"))  # fmt: skip
    first: Any = nn.Sequential(CONV[dims](8, 8, 1, bias=False), tail).double()
    with torch.no_grad():
        first[0].weight.copy_(torch.eye(8).reshape(8, 8, *[1] * dims))
    activation = seen[0]
    got = explain("lrp", first, activation, Class(2))
    weight = tail[2].weight[2].detach()
    z = activation.flatten(2).mean(dim=2)
    total = (z * weight).sum(dim=1, keepdim=True) + tail[2].bias[2].detach()
    score = torch.tensor(got.score, dtype=torch.double).reshape(-1, 1)
    of_channel = z * weight / (total + total.sign() * EPSILON) * score
    share = activation / activation.flatten(2).sum(dim=2).reshape(*z.shape, *[1] * dims)
    cells = share * of_channel.reshape(*z.shape, *[1] * dims)
    # The flat rule of the first layer spreads a cell's relevance over the channels.
    expected = cells.nan_to_num().sum(dim=1, keepdim=True).expand_as(activation) / 8
    assert relative(got.values, expected) <= 1e-3


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (lambda: [nn.Conv2d(4, 6, 3), nn.InstanceNorm2d(6)], "instance_norm"),
        (lambda: [nn.Conv2d(4, 6, 3), nn.ReLU(), nn.BatchNorm2d(6)], "does not directly follow"),
        (lambda: [nn.Conv2d(4, 6, 3), nn.Softmax(dim=1)], "softmax"),
    ],
    ids=["instance norm", "batch norm", "softmax"],
)
def test_an_operation_without_a_rule_is_named(
    layers: Callable[[], list[nn.Module]], says: str
) -> None:
    network = seeded(1, lambda: nn.Sequential(*layers(), nn.Conv2d(6, CLASSES, 1)))
    with pytest.raises(MethodError, match=says):
        explain("lrp", network, image())


@pytest.mark.parametrize(("dims", "groups"), list(itertools.product((2, 3), (1, 2))))
def test_a_norm_behind_a_transposed_convolution_is_merged(dims: int, groups: int) -> None:
    """The map is that of the same network with the norm written into the weights."""
    kind = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[dims]

    def build() -> nn.Module:
        return nn.Sequential(
            CONV[dims](4, 6, 1), nn.ReLU(), kind(6, 8, 2, stride=2, groups=groups), NORM[dims](8),
            nn.ReLU(), CONV[dims](8, CLASSES, 1),
        )  # fmt: skip

    network: Any = seeded(7, build).double().eval()
    plain: Any = seeded(7, build).double().eval()
    norm, up = network[3], plain[2]
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    with torch.no_grad():
        for g in range(groups):
            for k in range(8 // groups):
                rows = slice(g * 6 // groups, (g + 1) * 6 // groups)
                up.weight[rows, k] *= scale[g * 8 // groups + k]
        up.bias.copy_((up.bias - norm.running_mean) * scale + norm.bias)
    plain[3] = nn.Identity()
    x = image(dims).double()
    assert relative(explain("lrp", network, x).values, explain("lrp", plain, x).values) <= 1e-10


def test_an_unknown_composite_is_refused() -> None:
    with pytest.raises(MethodError, match="unknown composite 'gamma'"):
        make_method("lrp", {"composite": "gamma"})
