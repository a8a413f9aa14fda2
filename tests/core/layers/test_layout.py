"""Layers of tokens and channels-last layers are put on the grid that the network gave them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import neuroxai as nx
from neuroxai.core.errors import LayerError
from neuroxai.core.layers.layout import Layouts, is_block

GRIDS = {2: (3, 5), 3: (2, 3, 4)}


class Layer(nn.Module):
    """A transformer block with single-head attention, named like no library's."""

    def __init__(self, width: int, *, as_tuple: bool) -> None:
        super().__init__()
        self.before = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.after = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.as_tuple = as_tuple

    def forward(self, x: Tensor | tuple[Tensor]) -> Tensor | tuple[Tensor]:
        tokens = x[0] if isinstance(x, tuple) else x
        q, k, v = self.qkv(self.before(tokens)).chunk(3, -1)
        mixed: Tensor = tokens + (q @ k.mT).softmax(-1) @ v
        out: Tensor = mixed + self.mlp(self.after(mixed))
        return (out,) if self.as_tuple else out


class Tokens(nn.Module):
    """A vision transformer with class and register tokens in front."""

    def __init__(self, dims: int, extra: int, *, as_tuple: bool = False, width: int = 7) -> None:
        super().__init__()
        convolution = nn.Conv2d if dims == 2 else nn.Conv3d
        self.patch = convolution(2, width, 4, 4)
        self.extra = nn.Parameter(torch.randn(1, extra, width))
        self.blocks = nn.ModuleList([Layer(width, as_tuple=as_tuple) for _ in range(3)])
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        t = self.patch(x).flatten(2).mT
        t = torch.cat([self.extra.expand(len(t), -1, -1), t], 1)
        for block in self.blocks:
            t = block(t)
        t = t[0] if isinstance(t, tuple) else t
        out: Tensor = self.head(t.mean(1))
        return out


def grad_cam_by_hand(
    network: nn.Module, layer: str, x: Tensor, target: int, extra: int, grid: tuple[int, ...]
) -> Tensor:
    """Return the positive class activation map of a class, with the patches in their cells."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor]) -> None:
        kept.append(output[0] if isinstance(output, tuple) else output)

    handle = network.get_submodule(layer).register_forward_hook(keep)
    score = network(x)[:, target].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept)
    weights = gradient[:, extra:].mean(1, keepdim=True)
    cells = (weights * kept[0][:, extra:]).sum(-1).detach().relu().reshape(len(x), 1, *grid)
    mode = "bilinear" if len(grid) == 2 else "trilinear"
    return functional.interpolate(cells, x.shape[2:], mode=mode, align_corners=False)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("extra", [0, 5])
@pytest.mark.parametrize(
    ("layer", "as_tuple"),
    [("blocks.1", False), ("blocks.1", True), ("blocks.1.after", True), ("blocks.1.mlp.0", False)],
)
def test_grad_cam_of_tokens(dims: int, extra: int, layer: str, as_tuple: bool) -> None:
    torch.manual_seed(1)
    network = Tokens(dims, extra, as_tuple=as_tuple).double().eval()
    grid = GRIDS[dims]
    x = torch.randn(1, 2, *(4 * n for n in grid), dtype=torch.double)
    maps = [grad_cam_by_hand(network, layer, x, target, extra, grid) for target in range(3)]
    target = max(range(3), key=lambda each: float(maps[each].max()))  # one that is not zero
    expected = maps[target]
    result = nx.explain(network, x, "grad_cam", target, layer=layer)["grad_cam"]
    assert expected.max() > 0
    torch.testing.assert_close(result.values.double(), expected, rtol=1e-4, atol=1e-6)


def test_transposed_tokens_are_recognized_by_their_channels() -> None:
    layouts = Layouts(dims=2)
    values = torch.randn(2, 24, 4, 5)
    layouts.add(values)
    spatial, rearrange = layouts.of(nn.Identity(), values.flatten(2))
    assert spatial
    assert rearrange is not None
    assert torch.equal(rearrange(values.flatten(2)), values)
    assert layouts.of(nn.Linear(20, 32), torch.zeros(2, 24, 32)) == (False, None)


def test_windows_along_the_batch_have_no_layout() -> None:
    layouts = Layouts(dims=2)
    layouts.add(torch.zeros(1, 6, 8, 12))
    norm = nn.LayerNorm(6)
    assert layouts.of(norm, torch.zeros(6, 4, 4, 6)) == (False, None)
    assert layouts.of(norm, torch.zeros(6, 16, 6)) == (False, None)
    assert layouts.of(nn.Linear(6, 9), torch.zeros(1, 8, 12, 9))[0]
    assert layouts.of(nn.Linear(12, 7), torch.zeros(1, 6, 8, 7)) == (False, None)


def test_queries_and_attention_have_no_layout() -> None:
    layouts = Layouts(dims=2)
    layouts.add(torch.zeros(1, 8, 8, 12))
    layouts.add(torch.zeros(1, 8, 4, 6))
    assert layouts.of(nn.Identity(), torch.zeros(1, 24, 8))[0]
    assert layouts.of(nn.LayerNorm(4), torch.zeros(1, 2, 24, 4)) == (False, None)
    assert layouts.of(nn.Dropout(), torch.zeros(1, 2, 24, 24)) == (False, None)


def test_equal_products_are_ambiguous() -> None:
    layouts = Layouts(dims=2)
    layouts.add(torch.zeros(1, 6, 4, 6))
    layouts.add(torch.zeros(1, 6, 3, 8))
    assert layouts.of(nn.Identity(), torch.zeros(1, 24, 6)) == (False, None)


def test_layers_between_linear_patch_merging_have_the_channels_last() -> None:
    layouts = Layouts(dims=2)
    layouts.add(torch.zeros(1, 6, 11, 14))
    merged = torch.randn(1, 6, 7, 12)
    layouts.observe(nn.LayerNorm(12), merged)
    spatial, rearrange = layouts.of(nn.Dropout(), merged)
    assert spatial
    assert rearrange is not None
    assert torch.equal(rearrange(merged), merged.permute(0, 3, 1, 2))


def test_a_shape_that_no_layer_explains_is_refused() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(len(x), 32, 48, 12)

    network = nn.Sequential(nn.Conv2d(1, 8, 1), Odd(), nn.Flatten(), nn.Linear(18432, 3))
    with pytest.raises(LayerError, match="unknown which of these axes are spatial"):
        nx.explain(network.eval(), torch.randn(1, 1, 64, 36), "grad_cam", 1, layer="1")


def test_as_many_channels_as_cells() -> None:
    values = torch.zeros(1, 6, 6, 6)
    layouts = Layouts(dims=2)
    layouts.add(values)
    assert layouts.of(nn.ReLU(), values) == (True, None)
    layouts.observe(nn.LayerNorm(6), values)
    assert layouts.of(nn.ReLU(), values) == (False, None)


def test_a_block_is_recognized_by_its_parts() -> None:
    network = Tokens(2, 1)
    assert [name for name, part in network.named_modules() if is_block(part)] == [
        f"blocks.{n}" for n in range(3)
    ]
