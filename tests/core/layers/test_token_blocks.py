"""The default layer of a transformer: its last block whose patch tokens the output depends on.

The networks are small versions of those that libraries have, written anew. The right layer and its
map are computed with hooks and autograd alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import prod
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import neuroxai as nx
from neuroxai.core.errors import LayerError
from neuroxai.core.probe.requests import LayerMap
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.target import Class

GRIDS = {2: (4, 6), 3: (2, 4, 6)}
WIDTH = 6
DIMS = pytest.mark.parametrize("dims", [2, 3])


class Attention(nn.Module):
    """Attention with one head; ``inner`` adds norms inside, as in EVA and ViT-22B."""

    def __init__(self, width: int, *, inner: bool = False) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q_norm, self.norm = (nn.LayerNorm(width) if inner else nn.Identity() for _ in "ab")

    def forward(self, t: Tensor) -> Tensor:
        q, k, v = self.qkv(t).chunk(3, -1)
        out: Tensor = self.proj(self.norm((self.q_norm(q) @ k.mT).softmax(-1) @ v))
        return out


def mlp(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class Block(nn.Module):
    """timm: norm, attention and residual."""

    def __init__(self, width: int, *, inner: bool = False) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, inner=inner)
        self.norm2, self.mlp = nn.LayerNorm(width), mlp(width)

    def forward(self, t: Tensor) -> Tensor:
        t = t + self.attn(self.norm1(t))
        out: Tensor = t + self.mlp(self.norm2(t))
        return out


class EncoderBlock(nn.Module):
    """torchvision: ``nn.MultiheadAttention``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.self_attention = nn.LayerNorm(width), nn.MultiheadAttention(width, 2)
        self.ln_2, self.mlp = nn.LayerNorm(width), mlp(width)

    def forward(self, t: Tensor) -> Tensor:
        h = self.ln_1(t).movedim(1, 0)
        t = t + self.self_attention(h, h, h, need_weights=False)[0].movedim(0, 1)
        out: Tensor = t + self.mlp(self.ln_2(t))
        return out


class Output(nn.Module):
    """Hugging Face: the module that adds the residual."""

    def __init__(self, inner: int, width: int, *, norm: bool) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width) if norm else nn.Identity()

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.dense(hidden_states) + input_tensor)
        return out


class HFLayer(nn.Module):
    """Hugging Face: a tuple, keyword arguments, and residuals in modules of their own."""

    def __init__(self, width: int, *, post: bool = False) -> None:
        super().__init__()
        self.layernorm_before = nn.Identity() if post else nn.LayerNorm(width)
        self.attention, self.output = Attention(width), Output(width, width, norm=post)
        self.layernorm_after = nn.Identity() if post else nn.LayerNorm(width)
        self.intermediate = nn.Linear(width, 2 * width)
        self.final = Output(2 * width, width, norm=post)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor]:
        t = self.output(self.attention(self.layernorm_before(hidden_states)), hidden_states)
        inner = self.intermediate(self.layernorm_after(t)).relu()
        return (self.final(hidden_states=inner, input_tensor=t),)


class Residual(nn.Module):
    """LeViT and mixers: no norm in the module, and one module for each residual."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, t: Tensor) -> Tensor:
        out: Tensor = t + self.inner(t)
        return out


class Affine(nn.Module):
    """ResMLP: a scale and a shift instead of a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, t: Tensor) -> Tensor:
        out: Tensor = t * self.scale + self.shift
        return out


class Mixer(nn.Module):
    """MLP-Mixer and ResMLP: linear layers over tokens, then over channels."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.first, self.tokens = Affine(width), nn.Linear(count, count)
        self.second, self.channels = Affine(width), mlp(width)

    def forward(self, t: Tensor) -> Tensor:
        t = t + self.tokens(self.first(t).mT).mT
        out: Tensor = t + self.channels(self.second(t))
        return out


class ClassAttention(nn.Module):
    """CaiT: a block that changes the class token alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width)
        self.mlp = mlp(width)

    def forward(self, t: Tensor, token: Tensor) -> Tensor:
        both = self.attn(self.norm1(torch.cat([token, t], 1)))
        token = token + both[:, :1]
        out: Tensor = token + self.mlp(token)
        return out


class ViT(nn.Module):
    """A vision transformer with leading tokens; the head reads the first, or the mean of all."""

    def __init__(
        self, dims: int, make: Callable[[], nn.Module], leading: int, *, read: str = "class"
    ) -> None:
        super().__init__()
        convolution = nn.Conv2d if dims == 2 else nn.Conv3d
        self.patch = convolution(1, WIDTH, 2, 2)
        self.leading = nn.Parameter(torch.randn(1, leading, WIDTH))
        self.blocks = nn.Sequential(OrderedDict((f"b{n}", make()) for n in range(3)))
        self.late = nn.ModuleList([ClassAttention(WIDTH) for _ in "ab"] if read == "late" else [])
        self.norm, self.head, self.read = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3), read

    def forward(self, x: Tensor) -> Tensor:
        t = self.patch(x).flatten(2).mT
        t = torch.cat([self.leading.expand(len(t), -1, -1), t], 1)
        for block in self.blocks:
            t = block(t)
            t = t[0] if isinstance(t, tuple) else t
        if self.read == "late":
            token = torch.zeros_like(t[:, :1])
            for each in self.late:
                token = each(t, token)
            t = token
        t = self.norm(t)
        out: Tensor = self.head(t.mean(1) if self.read == "mean" else t[:, 0])
        return out


class TorchvisionViT(ViT):
    """The blocks and the final norm are in a module, which runs the blocks as a Sequential."""

    def __init__(self, dims: int, make: Callable[[], nn.Module], leading: int) -> None:
        super().__init__(dims, make, leading)
        self.encoder = nn.Sequential(self.blocks, self.norm)
        del self.blocks, self.norm

    def forward(self, x: Tensor) -> Tensor:
        t = self.patch(x).flatten(2).mT
        t = torch.cat([self.leading.expand(len(t), -1, -1), t], 1)
        out: Tensor = self.head(self.encoder(t)[:, 0])
        return out


class Branches(nn.Module):
    """vit-pytorch: no module for a block; the encoder adds the residuals."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.patch = (nn.Conv2d if dims == 2 else nn.Conv3d)(1, WIDTH, 2, 2)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [nn.Sequential(nn.LayerNorm(WIDTH), Attention(WIDTH)),
                 nn.Sequential(nn.LayerNorm(WIDTH), mlp(WIDTH))]
            ) for _ in range(2)
        )  # fmt: skip
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        t = self.patch(x).flatten(2).mT
        t = torch.cat([self.token.expand(len(t), -1, -1), t], 1)
        for pair in self.layers:
            assert isinstance(pair, nn.ModuleList)
            for branch in pair:
                t = t + branch(t)
        out: Tensor = self.head(t[:, 0])
        return out


class SwinBlock(nn.Module):
    """Attention in windows of two cells along each axis; ``v2`` normalizes after the branches."""

    def __init__(self, width: int, *, v2: bool) -> None:
        super().__init__()
        self.norm1, self.attn, self.v2 = nn.LayerNorm(width), Attention(width), v2
        self.norm2, self.mlp = nn.LayerNorm(width), mlp(width)

    def forward(self, t: Tensor) -> Tensor:
        t = t + (self.norm1(self.windows(t)) if self.v2 else self.windows(self.norm1(t)))
        out: Tensor = t + (self.norm2(self.mlp(t)) if self.v2 else self.mlp(self.norm2(t)))
        return out

    def windows(self, t: Tensor) -> Tensor:
        batch, *grid, width = t.shape
        cut = [part for n in grid for part in (n // 2, 2)]
        dims = len(grid)
        order = [0, *range(1, 2 * dims, 2), *range(2, 2 * dims + 1, 2), 2 * dims + 1]
        cells = t.reshape(batch, *cut, width).permute(order)
        mixed = self.attn(cells.reshape(-1, 2**dims, width)).reshape(cells.shape)
        back = [order.index(n) for n in range(len(order))]
        out: Tensor = mixed.permute(back).reshape(t.shape)
        return out


class Merging(nn.Module):
    """Joins two cells along each axis by a linear layer."""

    def __init__(self, width: int, dims: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width * 2**dims)
        self.reduction = nn.Linear(width * 2**dims, 2 * width, bias=False)

    def forward(self, t: Tensor) -> Tensor:
        for axis in range(1, t.dim() - 1):
            t = torch.cat(t.unflatten(axis, (-1, 2)).unbind(axis + 1), -1)
        out: Tensor = self.reduction(self.norm(t))
        return out


class AsTokens(nn.Module):
    """Hugging Face's Swin: tokens ``(B, N, C)`` between the modules, whose grid is an attribute."""

    def __init__(self, inner: nn.Module, grid: Sequence[int]) -> None:
        super().__init__()
        self.inner, self.grid = inner, tuple(grid)

    def forward(self, t: Tensor) -> Tensor:
        out: Tensor = self.inner(t.unflatten(1, self.grid)).flatten(1, -2)
        return out


class Swin(nn.Module):
    """Two stages with the channels last, or with tokens."""

    def __init__(self, dims: int, *, v2: bool = False, tokens: bool = False) -> None:
        super().__init__()
        grid, half = [2 * n for n in GRIDS[dims]], GRIDS[dims]
        self.patch = (nn.Conv2d if dims == 2 else nn.Conv3d)(1, WIDTH, 1)
        modules: list[nn.Module] = [SwinBlock(WIDTH, v2=v2), SwinBlock(WIDTH, v2=v2)]
        modules += [Merging(WIDTH, dims), *(SwinBlock(2 * WIDTH, v2=v2) for _ in "ab")]
        if tokens:
            places = (grid, grid, grid, half, half)
            modules = [AsTokens(m, g) for m, g in zip(modules, places, strict=True)]
        names = ("s0b0", "s0b1", "merging", "s1b0", "s1b1")
        self.body = nn.Sequential(OrderedDict(zip(names, modules, strict=True)))
        self.norm, self.head, self.tokens = nn.LayerNorm(2 * WIDTH), nn.Linear(2 * WIDTH, 3), tokens

    def forward(self, x: Tensor) -> Tensor:
        t = self.patch(x).movedim(1, -1)
        t = self.norm(self.body(t.flatten(1, -2) if self.tokens else t))
        out: Tensor = self.head(t.flatten(1, -2).mean(1))
        return out


class ConvNeXtBlock(nn.Module):
    """Channels first in and out, linear layers and a depthwise convolution within."""

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        convolution = nn.Conv2d if dims == 2 else nn.Conv3d
        self.conv_dw = convolution(width, width, 3, padding=1, groups=width)
        self.norm, self.mlp = nn.LayerNorm(width), mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.mlp(self.norm(self.conv_dw(x).movedim(1, -1))).movedim(-1, 1)
        return out


class ConvNeXt(nn.Module):
    def __init__(self, dims: int) -> None:
        super().__init__()
        self.patch = (nn.Conv2d if dims == 2 else nn.Conv3d)(1, WIDTH, 2, 2)
        self.stage = nn.Sequential(ConvNeXtBlock(dims, WIDTH), ConvNeXtBlock(dims, WIDTH))
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.stage(self.patch(x)).flatten(2).mean(2))
        return out


class Case(NamedTuple):
    """A network, the layers that are its blocks, and the layer expected of the default."""

    make: Callable[[int], nn.Module]
    blocks: tuple[str, ...]
    expected: str
    leading: int = 0
    channels_first: bool = False


def vit(make: Callable[[], nn.Module], leading: int, read: str = "class") -> Callable[..., ViT]:
    return lambda dims: ViT(dims, make, leading, read=read)


B012 = ("blocks.b0", "blocks.b1", "blocks.b2")
SWIN = ("body.s0b0", "body.s0b1", "body.s1b0", "body.s1b1")
CASES = {
    "class token": Case(vit(lambda: Block(WIDTH), 1), B012, "blocks.b1", 1),
    "mean": Case(vit(lambda: Block(WIDTH), 0, "mean"), B012, "blocks.b2"),
    "mean with a class token": Case(vit(lambda: Block(WIDTH), 1, "mean"), B012, "blocks.b2", 1),
    "registers": Case(vit(lambda: Block(WIDTH), 5), B012, "blocks.b1", 5),
    "norms in the attention": Case(
        vit(lambda: Block(WIDTH, inner=True), 1), B012, "blocks.b1", 1
    ),
    "torchvision": Case(vit(lambda: EncoderBlock(WIDTH), 1), B012, "blocks.b1", 1),
    "torchvision encoder": Case(
        lambda dims: TorchvisionViT(dims, lambda: EncoderBlock(WIDTH), 1),
        ("encoder.0.b0", "encoder.0.b1", "encoder.0.b2"), "encoder.0.b1", 1,
    ),
    "torch": Case(
        vit(lambda: nn.TransformerEncoderLayer(WIDTH, 2, 8, batch_first=True), 1),
        B012, "blocks.b1", 1,
    ),
    "Hugging Face": Case(vit(lambda: HFLayer(WIDTH), 1), B012, "blocks.b1", 1),
    "norms after": Case(vit(lambda: HFLayer(WIDTH, post=True), 1), B012, "blocks.b1", 1),
    "residual modules": Case(
        vit(lambda: nn.Sequential(Residual(Attention(WIDTH)), Residual(mlp(WIDTH))), 0, "mean"),
        B012, "blocks.b2.1",
    ),
    "class attention": Case(vit(lambda: Block(WIDTH), 0, "late"), B012, "blocks.b2"),
    "branches": Case(Branches, ("layers.0.0", "layers.0.1"), "layers.0.1", 1),
    "Swin": Case(Swin, SWIN, "body.s1b1"),
    "Swin v2": Case(lambda dims: Swin(dims, v2=True), SWIN, "body.s1b1"),
    "Swin of tokens": Case(lambda dims: Swin(dims, tokens=True), SWIN, "body.s1b1"),
    "ConvNeXt": Case(ConvNeXt, ("stage.0", "stage.1"), "stage.1", 0, True),
}  # fmt: skip


def cells_of(case: Case, values: Tensor, dims: int) -> Tensor:
    """Return the values of the patches as ``(B, N, C)``."""
    if case.channels_first:
        return values.flatten(2).mT
    return values[:, case.leading :] if values.dim() == 3 else values.flatten(1, dims)


def by_hand(network: nn.Module, case: Case, x: Tensor, target: int) -> tuple[str, Tensor]:
    """Return the last block whose patches have a gradient, and its positive activation map."""
    kept: dict[str, Tensor] = {}
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda module, given, output, name=name: kept.__setitem__(
                name, output[0] if isinstance(output, tuple) else output
            )
        )
        for name in case.blocks
    ]
    score = network(x)[:, target].sum()
    for handle in handles:
        handle.remove()
    dims = x.dim() - 2
    found = ("", torch.zeros(0))
    gradients = torch.autograd.grad(score, [*kept.values()], allow_unused=True)
    for (name, values), gradient in zip(kept.items(), gradients, strict=True):
        if gradient is None or not bool(cells_of(case, gradient, dims).any()):
            continue
        a, g = (cells_of(case, each, dims).detach() for each in (values, gradient))
        found = name, (a * g.mean(1, keepdim=True)).sum(-1).relu()
    return found


@DIMS
@pytest.mark.parametrize("name", CASES)
def test_the_last_block_that_matters(name: str, dims: int) -> None:
    case = CASES[name]
    torch.manual_seed(3)
    network = case.make(dims).double().eval()
    x = torch.randn(1, 1, *(2 * n for n in GRIDS[dims]), dtype=torch.double)
    maps = [by_hand(network, case, x, target) for target in range(3)]
    target = max(range(3), key=lambda each: float(maps[each][1].sum()))
    block, cells = maps[target]
    found = nx.explain(network, x, "grad_cam", target)["grad_cam"]
    assert found.layer == case.expected
    assert case.expected.startswith(block)
    grid = GRIDS[dims]
    assert cells.shape[1] == prod(grid)
    assert cells.max() > 0
    mode = "bilinear" if dims == 2 else "trilinear"
    expected = functional.interpolate(
        cells.reshape(1, 1, *grid), x.shape[2:], mode=mode, align_corners=False
    )
    torch.testing.assert_close(found.values.double(), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["class token", "mean", "Swin", "torchvision encoder"])
def test_checkpointed_blocks_give_the_same_layer(name: str) -> None:
    torch.manual_seed(3)
    network = CASES[name].make(2).double().eval()
    x = torch.randn(1, 1, *(2 * n for n in GRIDS[2]), dtype=torch.double)
    request, maps = LayerMap("auto"), []
    for checkpointed in (False, True):
        probe = WholeVolume(network, Class(1))
        probe.checkpointed = checkpointed
        with probe.at(x, [request]):
            layer, values = probe.layer_map(x, "auto")
        assert layer.name == CASES[name].expected
        maps.append(values)
    torch.testing.assert_close(maps[1], maps[0])


def test_a_mixer_has_its_last_block() -> None:
    torch.manual_seed(0)
    network = ViT(2, lambda: Mixer(prod(GRIDS[2]), WIDTH), 0, read="mean").eval()
    x = torch.randn(1, 1, *(2 * n for n in GRIDS[2]))
    assert nx.explain(network, x, "hirescam", 1)["hirescam"].layer == "blocks.b2"


def test_a_saturated_output_gives_the_last_block() -> None:
    network = nn.Sequential(ViT(2, lambda: Block(WIDTH), 0, read="mean"), nn.Softmax(1)).eval()
    head = network[0].head
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.bias.copy_(torch.tensor([0.0, 1e4, 0.0]))
    x = torch.randn(1, 1, *(2 * n for n in GRIDS[2]))
    found = nx.explain(network, x, "grad_cam", 1)["grad_cam"]
    assert found.layer == "0.blocks.b2"
    assert not found.values.any()
    assert any("exactly zero" in note for note in found.notes)


class LinearPatches(nn.Module):
    """MONAI's ViT with ``proj_type="perceptron"``: patches by reshaping and a linear layer."""

    def __init__(self, leading: int) -> None:
        super().__init__()
        self.patch = nn.Linear(4, WIDTH)
        self.leading = nn.Parameter(torch.randn(1, leading, WIDTH))
        self.blocks = nn.ModuleList(Block(WIDTH) for _ in range(3))
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        t = self.patch(x[:, 0].unfold(1, 2, 2).unfold(2, 2, 2).flatten(3).flatten(1, 2))
        t = torch.cat([self.leading.expand(len(t), -1, -1), t], 1)
        for block in self.blocks:
            t = block(t)
        out: Tensor = self.head(t[:, 0])
        return out


def test_blocks_with_an_unknown_grid_are_refused_with_the_way() -> None:
    torch.manual_seed(1)
    network = LinearPatches(2).eval()
    x = torch.randn(1, 1, 8, 12)
    with pytest.raises(LayerError, match=r"the block 'blocks.2'.*--layer-grid 14x14"):
        nx.explain(network, x, "grad_cam", 1)
    found = nx.explain(network, x, "grad_cam", 1, layer_grid="4x6")["grad_cam"]
    assert found.layer == "blocks.1@4x6"
    named = nx.explain(network, x, "grad_cam", 1, layer=found.layer)["grad_cam"]
    assert torch.equal(found.values, named.values)


def test_a_convolution_behind_the_blocks_is_the_layer() -> None:
    class Hybrid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.block = nn.Conv2d(1, WIDTH, 2, 2), Block(WIDTH)
            self.last, self.head = nn.Conv2d(WIDTH, 5, 1), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            low = self.patch(x)
            t = self.block(low.flatten(2).mT).mT.reshape(low.shape)
            out: Tensor = self.head(self.last(t).relu().mean((2, 3)))
            return out

    x = torch.randn(1, 1, 8, 12)
    assert nx.explain(Hybrid().eval(), x, "hirescam", 1)["hirescam"].layer == "last"


def test_linear_layers_of_a_gate_make_no_block() -> None:
    """Squeeze-and-excitation: linear layers on one vector for each image."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gate = nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            low = self.conv(x).relu()
            out: Tensor = low * self.gate(low.mean((2, 3)))[:, :, None, None].sigmoid()
            return out

    network = nn.Sequential(
        nn.Conv2d(1, WIDTH, 3), Gated(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 3)
    )
    x = torch.randn(1, 1, 8, 12)
    assert nx.explain(network.eval(), x, "hirescam", 1)["hirescam"].layer == "1.conv"


def test_a_segmenter_without_convolutions_has_its_last_block() -> None:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.block = nn.Conv2d(1, WIDTH, 2, 2), Block(WIDTH)
            self.head = nn.Linear(WIDTH, 2)

        def forward(self, x: Tensor) -> Tensor:
            low = self.patch(x)
            t = self.head(self.block(low.flatten(2).mT)).mT.reshape(len(x), 2, *low.shape[2:])
            return functional.interpolate(t, scale_factor=2)

    x = torch.randn(1, 1, 8, 12)
    assert nx.explain(Linear().eval(), x, "hirescam", 1)["hirescam"].layer == "block"
