"""Layers whose grid is given: tokens that nothing in the network places on the image."""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import neuroxai as nx
from neuroxai.core.errors import LayerError
from neuroxai.core.layers.labels import parse_grid, with_grid
from neuroxai.core.layers.reduction import MEAN_GRADIENT_WEIGHTS
from neuroxai.core.probe.requests import LayerMap
from neuroxai.core.probe.sliding_window import SlidingWindow
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.probe.windows import Windows
from neuroxai.core.target.target import Class
from neuroxai.methods import make_method

GRIDS = {2: (3, 5), 3: (2, 3, 4)}
EDGE = 4


class Mixing(nn.Module):
    """Mixes tokens, and the channels of each."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.tokens, self.channels = nn.Linear(count, count), nn.Linear(width, width)

    def forward(self, t: Tensor) -> Tensor:
        out: Tensor = t + self.channels(self.tokens(t.mT).mT).tanh()
        return out


class Transposed(nn.Module):
    """Returns tokens as ``(B, C, N)``."""

    def forward(self, t: Tensor) -> Tensor:
        return t.mT


class LinearPatches(nn.Module):
    """A network whose patches are made by reshaping and a linear layer: no layer shows a grid."""

    def __init__(self, dims: int, leading: int, width: int = 6) -> None:
        super().__init__()
        self.patch = nn.Linear(2 * EDGE**dims, width)
        self.leading = nn.Parameter(torch.randn(1, leading, width))
        count = leading + prod(GRIDS[dims])
        self.blocks = nn.ModuleList([Mixing(count, width) for _ in range(2)])
        self.transposed, self.head = Transposed(), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        for axis in range(2, x.dim()):
            x = x.unfold(axis, EDGE, EDGE)
        dims = (x.dim() - 2) // 2
        t = self.patch(x.flatten(dims + 2).movedim(1, -2).flatten(1, dims).flatten(2))
        t = torch.cat([self.leading.expand(len(t), -1, -1), t], 1)
        for block in self.blocks:
            t = block(t)
        out: Tensor = self.head(self.transposed(t).mean(2))
        return out


def network_and_image(dims: int, leading: int) -> tuple[LinearPatches, Tensor]:
    torch.manual_seed(dims + leading)
    network = LinearPatches(dims, leading).double().eval()
    return network, torch.randn(2, 2, *(EDGE * n for n in GRIDS[dims]), dtype=torch.double)


def by_hand(network: LinearPatches, name: str, x: Tensor, target: int, leading: int) -> Tensor:
    """Return the positive class activation map of each cell, interpolated to the image."""
    kept: list[Tensor] = []
    layer = network.get_submodule(name)
    handle = layer.register_forward_hook(lambda module, given, output: kept.append(output))
    score = network(x)[:, target].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept)
    a, g = kept[0].detach()[:, leading:], gradient[:, leading:]
    dims = x.dim() - 2
    cells = torch.stack([(each * grad.mean(0)).sum(-1) for each, grad in zip(a, g, strict=True)])
    mode = "bilinear" if dims == 2 else "trilinear"
    return functional.interpolate(
        cells.relu().reshape(len(x), 1, *GRIDS[dims]), x.shape[2:], mode=mode, align_corners=False
    )


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("leading", [0, 1, 5])
def test_a_map_on_a_given_grid(dims: int, leading: int) -> None:
    network, x = network_and_image(dims, leading)
    expected = by_hand(network, "blocks.0", x, 1, leading)
    result = nx.explain(network, x, "grad_cam", 1, layer="blocks.0", layer_grid=GRIDS[dims])
    found = result["grad_cam"]
    assert expected.max() > 0
    torch.testing.assert_close(found.values.double(), expected, rtol=1e-4, atol=1e-6)
    assert ("left out" in found.notes[0]) == (leading > 0)
    # The label of the explanation reproduces the map.
    text = "x".join(map(str, GRIDS[dims]))
    assert found.layer == f"blocks.0@{text}" == found.parameters["layer"]
    again = nx.explain(network, x, "grad_cam", 1, layer=found.layer)["grad_cam"]
    assert torch.equal(again.values, found.values)
    same = nx.explain(network, x, make_method("grad_cam", {"layer": found.layer}), 1)["grad_cam"]
    assert torch.equal(same.values, found.values)


def test_tokens_on_the_last_axis() -> None:
    network, x = network_and_image(2, 0)
    tokens = by_hand(network, "blocks.1", x, 2, 0)
    found = nx.explain(network, x, "grad_cam", 2, layer="transposed", layer_grid="3x5")["grad_cam"]
    torch.testing.assert_close(found.values.double(), tokens, rtol=1e-4, atol=1e-6)


def test_an_unknown_grid_names_the_option() -> None:
    for dims, example in ((2, "--layer-grid 14x14"), (3, "--layer-grid 6x7x5")):
        network, x = network_and_image(dims, 1)
        with pytest.raises(LayerError, match=example):
            nx.explain(network, x, "grad_cam", 1, layer="blocks.0")


@pytest.mark.parametrize(
    ("layer", "grid", "words"),
    [
        ("blocks.0", "4x5", r"does not fit the layer grid 4x5, expected 20 tokens"),
        ("blocks.0", "2x3", r"does not fit the layer grid 2x3, expected 6 tokens"),
        ("blocks.0", "3x5x1", r"does not fit the layer grid 3x5x1"),
        ("blocks.0", "15", r"invalid layer grid '15'"),
        ("blocks.0", "3x0", r"invalid layer grid '3x0'"),
        ("blocks.0", "3xfive", r"invalid layer grid"),
        ("blocks.0@5x3", "3x5", r"contradict each other"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(layer: str, grid: str, words: str) -> None:
    network, x = network_and_image(2, 1)
    with pytest.raises(LayerError, match=words):
        nx.explain(network, x, "grad_cam", 1, layer=layer, layer_grid=grid)


def test_a_grid_that_contradicts_the_network_is_refused() -> None:
    convolution = nn.Conv2d(1, 7, 4, 4)
    network = nn.Sequential(convolution, nn.Flatten(2), Transposed(), Transposed())
    network.append(nn.AdaptiveAvgPool1d(1)).append(nn.Flatten())
    x = torch.randn(1, 1, 12, 20)
    assert nx.explain(network, x, "grad_cam", 1, layer="2@3x5")["grad_cam"].layer == "2@3x5"
    with pytest.raises(LayerError, match="the layers before it show the grid 3x5"):
        nx.explain(network, x, "grad_cam", 1, layer="2@5x3")
    for layer, words in (("0@5x3", "does not fit"), ("0:input@3x5", "axes are known")):
        with pytest.raises(LayerError, match=words):
            nx.explain(network, x, "grad_cam", 1, layer=layer)
    with pytest.raises(LayerError, match="requested on the grids 3x5 and 5x3"):
        nx.explain(network, x, {"grad_cam": {"layer": "2@3x5"}, "hirescam": {"layer": "2@5x3"}}, 1)


def test_windows_along_the_batch_have_no_grid() -> None:
    class Windowed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Linear(16, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            cut = x.unfold(2, 4, 4).unfold(3, 4, 4)  # (B, 1, 3, 5, 4, 4)
            t = self.inner(cut.flatten(4).flatten(0, 1).movedim(0, 1)[0].repeat(2, 1, 1))
            out: Tensor = self.head(t.mean((0, 1)))[None]
            return out

    with pytest.raises(LayerError, match="attention in windows"):
        nx.explain(Windowed(), torch.randn(1, 1, 12, 20), "grad_cam", 1, layer="inner@1x5")


def test_a_square_of_tokens_and_channels_is_resolved_by_the_module_or_refused() -> None:
    class Square(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.head = inner, nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.inner(x[:, 0].reshape(len(x), 6, 6)).mean(1))
            return out

    x = torch.randn(1, 1, 4, 9)
    found = nx.explain(Square(nn.Linear(6, 6)), x, "hirescam", 1, layer="inner@2x3")["hirescam"]
    assert found.layer == "inner@2x3"
    with pytest.raises(LayerError, match="channels first and last"):
        nx.explain(Square(nn.Tanh()), x, "hirescam", 1, layer="inner@2x3")


def test_a_given_grid_within_windows() -> None:
    """A window as large as the image gives the map of the whole image."""

    class Segmenter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.tokens = nn.Linear(1, 5), Mixing(24, 5)
            self.last = nn.Conv2d(5, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            t = self.tokens(self.first(x.flatten(2).mT))
            out: Tensor = self.last(t.mT.unflatten(2, x.shape[2:]))
            return out

    torch.manual_seed(2)
    network, x = Segmenter().double().eval(), torch.randn(1, 1, 4, 6, dtype=torch.double)
    request = LayerMap("tokens@4x6", MEAN_GRADIENT_WEIGHTS)
    windows = SlidingWindow(network, Class(1), windows=Windows((4, 6), torch.ones(4, 6), 0.5))
    maps = []
    for probe in (WholeVolume(network, Class(1)), windows):
        with probe.at(x, [request]):
            layer, values = probe.layer_map(x, request.layer)
        assert layer.name == "tokens@4x6"
        maps.append(values)
    torch.testing.assert_close(maps[1], maps[0])


def test_a_grid_without_a_layer_is_that_of_the_default_layer() -> None:
    assert with_grid(None, [3, 5]) == "auto@3x5"
    network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.randn(1, 1, 6, 5)
    assert nx.explain(network, x, "grad_cam", 1, layer_grid="6x5")["grad_cam"].layer == "0@6x5"
    with pytest.raises(LayerError, match="the default layer '0' has the grid 6x5"):
        nx.explain(network, x, "grad_cam", 1, layer_grid="5x6")
    assert parse_grid("6X5") == (6, 5)
