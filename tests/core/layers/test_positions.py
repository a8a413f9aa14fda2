"""Positions of cells behind convolutions without padding, against gradients and by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import neuroxai as nx
from neuroxai.core.engine.cell_positions import CellPositions
from neuroxai.core.errors import TargetError
from neuroxai.core.layers.positions import may_crop, trace
from neuroxai.core.probe.requests import LayerMap
from neuroxai.core.probe.sliding_window import SlidingWindow
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.probe.windows import Windows
from neuroxai.core.target.target import Class
from neuroxai.methods.hirescam import ActivationTimesGradient

SIZES = {2: (45, 38), 3: (33, 29, 38)}


class Steps(nn.Module):
    """Operations in a row; kernels of ones, so that the gradient of a cell is symmetric."""

    def __init__(self, *steps: nn.Module | Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.steps = steps
        self.held = nn.ModuleList(step for step in steps if isinstance(step, nn.Module))
        for parameter in self.parameters():
            nn.init.ones_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


def conv(dims: int, kernel: int | tuple[int, ...], **more: int) -> nn.Module:
    kernel = kernel if isinstance(kernel, int) else kernel[:dims]
    return (nn.Conv2d if dims == 2 else nn.Conv3d)(1, 1, kernel, bias=False, **more)  # type: ignore[arg-type]


def up(dims: int, kernel: int, stride: int, padding: int = 0) -> nn.Module:
    made = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
    return made(1, 1, kernel, stride, padding, bias=False)


def pool(dims: int, kernel: int, stride: int) -> nn.Module:
    return (nn.AvgPool2d if dims == 2 else nn.AvgPool3d)(kernel, stride)


def resize(dims: int) -> nn.Module:
    return nn.Upsample(scale_factor=2, mode="bilinear" if dims == 2 else "trilinear")


CASES: dict[str, Callable[[int], Steps]] = {
    "valid": lambda dims: Steps(conv(dims, 3), conv(dims, (5, 1, 3))),
    "even kernels": lambda dims: Steps(conv(dims, 4), conv(dims, (2, 3, 4))),
    "dilated": lambda dims: Steps(conv(dims, 3, dilation=3), conv(dims, (1, 3, 5), dilation=2)),
    "strided": lambda dims: Steps(conv(dims, 3, stride=2), conv(dims, 5, stride=1, padding=1)),
    "pooled": lambda dims: Steps(conv(dims, 3), pool(dims, 2, 2), conv(dims, 3), pool(dims, 3, 2)),
    "up again": lambda dims: Steps(conv(dims, 3), pool(dims, 2, 2), conv(dims, 3), up(dims, 2, 2)),
    "transposed": lambda dims: Steps(conv(dims, 5, stride=2), up(dims, 4, 2, 1), conv(dims, 3)),
    "resized": lambda dims: Steps(conv(dims, 3, stride=2), conv(dims, 3), resize(dims)),
    "slices": lambda dims: Steps(
        conv(dims, 3), lambda x: x[:, :, 4:-1, 2:], lambda x: x[..., -20:-3], conv(dims, 3)
    ),
    "strided slices": lambda dims: Steps(conv(dims, 3), lambda x: x[:, :, 1::2, ::3]),
    "padding": lambda dims: Steps(
        lambda x: functional.pad(x, (3, 0, 1, 2)), conv(dims, 7),
        lambda x: functional.pad(x, (1, 2) * dims, mode="replicate"), conv(dims, 5),
    ),
    "narrow": lambda dims: Steps(conv(dims, 3), lambda x: x.narrow(3, 5, 20).relu() * 2),
}  # fmt: skip


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", CASES)
def test_a_cell_is_centered_on_its_gradient(name: str, dims: int) -> None:
    """Kernels of ones spread a gradient evenly to both sides of the cell's position.

    Behind a transposed convolution this holds for the mean of two neighbors.
    """
    network = CASES[name](dims).double()
    x = torch.rand(1, 1, *SIZES[dims], dtype=torch.double, requires_grad=True)
    output = network(x)
    found = trace(network, x, lambda output: output)
    assert found.shape == tuple(output.shape)
    assert found.output is not None
    first = [n // 2 for n in output.shape[2:]]
    second = [n + 1 for n in first]
    total = output[(0, 0, *first)] + output[(0, 0, *second)]
    (gradient,) = torch.autograd.grad(total, [x])
    for axis, (index, n) in enumerate(zip(first, x.shape[2:], strict=True)):
        others = tuple(other for other in range(dims) if other != axis)
        weight = gradient[0, 0].sum(others)
        center = float((weight * torch.arange(n)).sum() / weight.sum())
        expected = found.output.first[axis] + found.output.scale[axis] * (index + 0.5)
        assert expected == pytest.approx(center)


class UNet(nn.Module):
    """The original U-Net in small: no padding, skip connections cropped to the center."""

    def __init__(self, dims: int, classes: int = 2) -> None:
        super().__init__()
        made = nn.Conv2d if dims == 2 else nn.Conv3d
        self.dims = dims

        def pair(a: int, b: int) -> nn.Module:
            return nn.Sequential(made(a, b, 3), nn.ReLU(), made(b, b, 3), nn.ReLU())

        self.down, self.low, self.join = pair(1, 4), pair(4, 6), pair(8, 4)
        transposed = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
        self.up, self.head = transposed(6, 4, 2, 2), made(4, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        down = self.down(x)
        pooled = (functional.max_pool2d if self.dims == 2 else functional.max_pool3d)(down, 2)
        low = self.up(self.low(pooled))
        for axis in range(2, x.dim()):
            cut = (down.shape[axis] - low.shape[axis]) // 2
            down = down.narrow(axis, cut, low.shape[axis])
        out: Tensor = self.head(self.join(torch.cat([low, down], 1)))
        return out


UNET_SIZES = {2: (36, 28), 3: (24, 28, 22)}


@pytest.mark.parametrize("dims", [2, 3])
def test_the_output_of_a_u_net_without_padding(dims: int) -> None:
    """Arithmetic by hand: 2 + (2 cells of 2 voxels) + 2 = 8 voxels on either side."""
    torch.manual_seed(0)
    network = UNet(dims).eval()
    x = torch.randn(1, 1, *UNET_SIZES[dims])
    found = trace(network, x, lambda output: output, ["down", "low", "up", "head:input"])
    assert found.output == CellPositions((1.0,) * dims, (8.0,) * dims)
    assert found.layers["down"] == CellPositions((1.0,) * dims, (2.0,) * dims)
    assert found.layers["low"] == CellPositions((2.0,) * dims, (6.5,) * dims)
    assert found.layers["up"] == CellPositions((1.0,) * dims, (6.0,) * dims)
    assert found.layers["head:input"] == found.output


@pytest.mark.parametrize("dims", [2, 3])
def test_a_map_behind_a_u_net_without_padding(dims: int) -> None:
    torch.manual_seed(0)
    network = UNet(dims).double().eval()
    x = torch.randn(1, 1, *UNET_SIZES[dims], dtype=torch.double)
    kept: list[Tensor] = []
    handle = network.head.register_forward_pre_hook(lambda module, given: kept.append(given[0]))
    score = network(x)[:, 1].mean()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept)
    cells = (kept[0] * gradient.flatten(2).mean(2).reshape(1, -1, *[1] * dims)).sum(1, keepdim=True)
    expected = functional.pad(cells.detach().relu(), (8, 8) * dims)
    found = nx.explain(network, x, "grad_cam", 1, within="image")
    assert found["grad_cam"].layer == "head:input"
    torch.testing.assert_close(found["grad_cam"].values.double(), expected, rtol=1e-4, atol=1e-7)
    assert any("cover the voxels 8 to" in note for note in found["grad_cam"].notes)
    assert any("covers voxels 8 to" in warning for warning in found.warnings)


def test_a_mask_on_the_image_restricts_a_cropped_output() -> None:
    torch.manual_seed(1)
    network = UNet(2).double().eval()
    x = torch.randn(2, 1, *UNET_SIZES[2], dtype=torch.double, requires_grad=True)
    mask = torch.zeros(UNET_SIZES[2])
    mask[10:14, 3:11] = 1  # its columns begin in front of the output's
    output = network(x)[:, 1]
    score = output[:, 10 - 8 : 14 - 8, 0 : 11 - 8].mean((1, 2))
    (gradient,) = torch.autograd.grad(score.sum(), [x])
    found = nx.explain(network, x.detach(), "vanilla_gradient", 1, within=mask)["vanilla_gradient"]
    torch.testing.assert_close(torch.tensor(found.score).double(), score.detach())
    torch.testing.assert_close(found.values.double(), gradient)
    assert found.within is not None
    kept = mask.bool().clone()
    kept[:, :8] = False
    assert torch.equal(found.within, kept.expand(2, -1, -1))
    on_output = nx.Mask(mask[8:-8, 8:-8])
    same = nx.explain(network, x.detach(), "vanilla_gradient", nx.Class(1, within=on_output))
    assert torch.equal(same["vanilla_gradient"].values, found.values)
    outside = torch.zeros(UNET_SIZES[2])
    outside[2, 2] = 1
    with pytest.raises(TargetError, match="is empty"):
        nx.explain(network, x.detach(), "vanilla_gradient", 1, within=outside)


class Planted(nn.Module):
    """Finds a bright point by valid convolutions, pooling and a global mean."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        made = nn.Conv2d if dims == 2 else nn.Conv3d
        self.first, self.second = made(1, 2, 5, bias=False), made(2, 3, 3, bias=False)
        self.pool = (nn.MaxPool2d if dims == 2 else nn.MaxPool3d)(2)
        self.last, self.head = nn.ReLU(), nn.Linear(3, 2)
        for module in (self.first, self.second, self.head):
            nn.init.ones_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        low = self.second(self.pool(self.first(x)))
        out: Tensor = self.head(self.last(low).flatten(2).mean(2))
        return out


@pytest.mark.parametrize("dims", [2, 3])
def test_a_classifiers_map_is_placed_rather_than_stretched(dims: int) -> None:
    """By hand: conv 5 (+2), pool 2 (+0.5), conv 3 at 2 voxels (+2): cells at 4.5 + 2 j."""
    network = Planted(dims).double().eval()
    size = (31, 24, 27)[:dims]
    point = (20, 5, 18)[:dims]
    x = torch.zeros(1, 1, *size, dtype=torch.double)
    x[(0, 0, *point)] = 1.0
    found = nx.explain(network, x, "grad_cam", 1)["grad_cam"]
    assert found.layer == "second"
    kept: list[Tensor] = []
    handle = network.second.register_forward_hook(lambda module, given, out: kept.append(out))
    score = network(x)[:, 1].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept)
    weights = gradient.flatten(2).mean(2)[0]
    cells = np.einsum("c,c...->...", weights.numpy(), kept[0][0].detach().numpy()).clip(min=0)
    for axis, n in enumerate(size):  # one axis after the other, by NumPy
        centers = 4.5 + 2 * np.arange(cells.shape[axis])
        voxels = np.arange(n)
        inside = (voxels >= centers[0] - 1) & (voxels <= centers[-1] + 1)
        line = lambda values, c=centers, v=voxels, i=inside: np.interp(v, c, values) * i  # noqa: E731
        cells = np.apply_along_axis(line, axis, cells)
    np.testing.assert_allclose(found.values[0, 0].numpy(), cells, rtol=1e-5, atol=1e-8)
    # The map's center of mass is the planted point.
    mass = found.values[0, 0].double()
    for axis, index in enumerate(point):
        others = tuple(other for other in range(dims) if other != axis)
        line_mass = mass.sum(others)
        center = float((line_mass * torch.arange(len(line_mass))).sum() / line_mass.sum())
        assert abs(center - index) < 1.0
    assert found.diagnostics["cell_voxels"] == [2.0] * dims


def test_cells_that_divide_the_image_are_interpolated_as_before() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3, 2, 1), nn.ReLU(), nn.Conv2d(3, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4, 2),
    ).eval()  # fmt: skip
    assert not may_crop(network)
    x = torch.randn(1, 1, 16, 24)
    probe = WholeVolume(network, Class(1))
    with probe.at(x, [LayerMap("2")]):
        layer, values = probe.layer_map(x, "2")
        placed = probe.place(values, layer, x)
    size = tuple(x.shape[2:])
    expected = functional.interpolate(values, size, mode="bilinear", align_corners=False)
    assert torch.equal(placed, expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_cropped_layer_in_windows(dims: int) -> None:
    """A layer without padding inside a network that restores the size, in one and more windows."""
    made, transposed = (nn.Conv2d, nn.ConvTranspose2d) if dims == 2 else (
        nn.Conv3d, nn.ConvTranspose3d
    )  # fmt: skip
    torch.manual_seed(4)
    network = nn.Sequential(made(1, 3, 3), nn.ReLU(), transposed(3, 2, 3)).double().eval()
    size = (7, 6, 8)[:dims]
    x = torch.randn(1, 1, *size, dtype=torch.double)
    for reduction in (LayerMap("0").reduction, ActivationTimesGradient()):
        request, maps = LayerMap("0", reduction), []
        windows = Windows(size, torch.ones(size), 0.5)
        for probe in (
            WholeVolume(network, Class(1)), SlidingWindow(network, Class(1), windows=windows)
        ):  # fmt: skip
            with probe.at(x, [request]):
                layer, values = probe.layer_map(x, "0", reduction)
                maps.append(probe.place(values, layer, x))
        torch.testing.assert_close(maps[1], maps[0])
        border = torch.ones(size, dtype=torch.bool)
        border[(slice(1, -1),) * dims] = False
        assert not maps[0][0, 0][border].any()


@pytest.mark.parametrize(
    "step",
    [lambda x: x.roll(1, 2), lambda x: x.flip(3), lambda x: x[:, :, torch.arange(3, 9)]],
)
def test_unknown_positions(step: Callable[[Tensor], Tensor]) -> None:
    network = Steps(conv(2, 3), step)
    assert trace(network, torch.rand(1, 1, 12, 9), lambda output: output).output is None
