"""The faster twins: the same answer as stock torch, in both directions, for any network."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import vector_to_parameters
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from networks import SHAPES, TASKS, explain, image, make, relative, seeded
from neuroxai.core.engine import fast_path
from neuroxai.core.engine.converted_weights import CHANNELS_LAST, ConvertedWeights
from neuroxai.core.engine.fast_path import FastPath, is_fast, run_fast
from neuroxai.core.engine.norm_gradients import NormGradients
from neuroxai.core.engine.settings import STOCK_TORCH_VARIABLE, PassSettings, stock_torch
from neuroxai.core.probe.checkpointing import checkpointed
from neuroxai.core.probe.requests import InputGradient, LayerMap, Request
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.target import Class
from neuroxai.inspection.information_flow import information_flow
from neuroxai.methods import METHODS

pytestmark = pytest.mark.skipif(not fast_path.is_supported(), reason="left to stock torch here")

Call = Callable[[Tensor], Tensor]
F: Any = functional
"""Untyped, for calls that the stubs refuse."""
SHAPE = (2, 6, 5, 7, 9)


def both_ways(call: Call, x: Tensor) -> tuple[Tensor, Tensor]:
    """An answer and the gradient of a random mix of it."""
    leaf = x.detach().clone().requires_grad_()
    y = call(leaf)
    mix = torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).to(y)
    (gradient,) = torch.autograd.grad((y * mix).sum(), leaf)
    return y.detach(), gradient


def check(call: Callable[[Tensor, torch.dtype], Tensor], x: Tensor) -> None:
    """Compare the twin in single with stock torch in double precision, both ways, both layouts."""
    expected = both_ways(lambda x: call(x, torch.float64), x.double())
    for laid in (x, x.contiguous(memory_format=CHANNELS_LAST)):
        with FastPath():
            found = both_ways(lambda x: call(x, torch.float32), laid)
            with torch.no_grad():
                without_graph = call(laid, torch.float32)
        for got, want in zip((*found, without_graph), (*expected, expected[0]), strict=True):
            assert got.shape == want.shape
            assert relative(got.double(), want) <= 2e-6


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


GEOMETRIES = [
    (kernel, stride, padding, dilation, groups)
    for kernel, stride, padding, dilation, groups in itertools.product(
        ((3, 3, 3), (2, 2, 2), (1, 3, 2), (1, 1, 1)),
        (1, 2, (1, 2, 2)),
        (0, 1, (0, 2, 1)),
        (1, 2),
        (1, 2),
    )
    if all((k - 1) * dilation + 1 <= n for k, n in zip(kernel, SHAPE[2:], strict=True))
]


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "groups"), GEOMETRIES, ids=str)
@pytest.mark.parametrize("batch", [1, 2])
def test_convolution(
    kernel: tuple[int, ...], stride: Any, padding: Any, dilation: int, groups: int, batch: int
) -> None:
    weight, bias = drawn(8, 6 // groups, *kernel), drawn(8)

    def call(x: Tensor, dtype: torch.dtype) -> Tensor:
        return functional.conv3d(
            x, weight.to(dtype), bias.to(dtype), stride, padding, dilation, groups
        )

    check(call, drawn(batch, *SHAPE[1:]))


@pytest.mark.parametrize("channels", [1, 3, 4, 5, 9, 12, 16])
@pytest.mark.parametrize(
    ("width", "kernel", "padding"), [(10, 3, 1), (9, 3, 1), (8, 2, 1), (10, 5, 0)]
)
@pytest.mark.parametrize("dilation", [1, (2, 1, 1), (1, 1, 2)], ids=str)
def test_gradient_of_every_number_of_channels(
    channels: int, width: int, kernel: int, padding: int, dilation: Any
) -> None:
    weight = drawn(8, channels, 3, 2, kernel)

    def call(x: Tensor, dtype: torch.dtype) -> Tensor:
        return functional.conv3d(x, weight.to(dtype), None, 1, padding, dilation)

    check(call, drawn(2, channels, 5, 4, width))


@pytest.mark.parametrize(
    "asked",
    [
        {"scale_factor": 2},
        {"scale_factor": 2.0, "mode": "nearest"},
        {"scale_factor": (1, 2, 4)},
        {"size": (10, 7, 36)},
        {"size": (10, 8, 9)},
        {"scale_factor": 3.0},
        {"scale_factor": 1.5},
        {"scale_factor": 2.0, "mode": "trilinear", "align_corners": False},
        {"scale_factor": 2.0, "mode": "nearest-exact"},
        {"scale_factor": 2.0, "recompute_scale_factor": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("joined", [False, True], ids=["alone", "joined to a skip"])
def test_upsampling(asked: dict[str, Any], joined: bool) -> None:
    def call(x: Tensor, dtype: torch.dtype) -> Tensor:
        larger = functional.interpolate(x, **asked)
        if joined:
            larger = torch.cat([larger, larger[:, :1] ** 2], dim=1) ** 2
        return larger

    check(call, drawn(*SHAPE))


WRONG = "size or scale_factor|spatial dimensions"


@pytest.mark.parametrize(
    "asked",
    [{}, {"size": (10, 14, 18), "scale_factor": 2}, {"scale_factor": (2, 2)}, {"size": (10, 14)}],
    ids=str,
)
def test_a_wrong_upsampling_is_refused_in_the_words_of_stock_torch(asked: dict[str, Any]) -> None:
    x = drawn(*SHAPE).requires_grad_()
    with pytest.raises(ValueError, match=WRONG) as stock:
        functional.interpolate(x, **asked)
    with FastPath(), pytest.raises(ValueError, match=WRONG) as fast:
        functional.interpolate(x, **asked)
    assert str(fast.value) == str(stock.value)


@pytest.mark.parametrize("dim", [1, -4, 2], ids=["channels", "channels from the end", "depth"])
@pytest.mark.parametrize("largest", [0, 1], ids=["first", "second"])
def test_concatenation(dim: int, largest: int) -> None:
    def call(x: Tensor, dtype: torch.dtype) -> Tensor:
        parts = [x.square(), x[:, :2].detach(), x[:, 1:4].sin()]
        if dim == 2:
            parts[1:] = [x.exp()]
        return torch.cat(parts if largest == 0 else parts[::-1], dim=dim)

    check(call, drawn(*SHAPE))


def test_calls_that_a_twin_does_not_know_go_to_stock_torch() -> None:
    """NumPy's word for a dimension, which torch takes and its documentation does not tell."""
    cat: Any = torch.cat
    check(lambda x, dtype: cat([x, x.sin()], axis=1), drawn(*SHAPE))
    check(lambda x, dtype: cat([x, x.sin()], axis=3), drawn(*SHAPE))
    with FastPath(), pytest.raises(TypeError, match="depth"):
        cat([drawn(*SHAPE)], depth=1)


def test_a_skips_gradient_does_not_hold_the_whole_in_memory() -> None:
    decoded, skip = (drawn(1, n, 5, 7, 9).requires_grad_() for n in (8, 4))
    with FastPath():
        joined = torch.cat([decoded, skip], 1)
    gradients = torch.autograd.grad(joined.square().sum(), [decoded, skip])
    for gradient, part in zip(gradients, (decoded, skip), strict=True):
        assert torch.equal(gradient, 2 * part)
    assert gradients[1].untyped_storage().nbytes() == gradients[1].nbytes


@pytest.mark.parametrize("kernel", [3, 2], ids=["kernel 3", "kernel 2"])
@pytest.mark.parametrize("stride", [1, 2], ids=["stride 1", "stride 2"])
@pytest.mark.parametrize("dilation", [1, 2], ids=["dilation 1", "dilation 2"])
@pytest.mark.parametrize("groups", [1, 2], ids=["one group", "two groups"])
@pytest.mark.parametrize("channels", [6, 64], ids=["few channels", "many channels"])
def test_transposed_convolution(
    kernel: int, stride: int, dilation: int, groups: int, channels: int
) -> None:
    weight, bias = drawn(channels, 4 // groups, kernel, kernel, kernel), drawn(4)
    extra = (stride - 1, 0, 0)

    def call(x: Tensor, dtype: torch.dtype) -> Tensor:
        return functional.conv_transpose3d(
            x, weight.to(dtype), bias.to(dtype), stride, 1, extra, groups, dilation
        )

    check(call, drawn(1, channels, *SHAPE[2:]))


@pytest.mark.parametrize("size", [(5, 7, 9), (40, 40, 12)], ids=["few voxels", "many voxels"])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_on_either_side_of_torchs_threshold(size: tuple[int, ...], stride: int) -> None:
    weight = drawn(8, 16, 3, 3, 3)
    check(
        lambda x, dtype: functional.conv3d(x, weight.to(dtype), None, stride, 1),
        drawn(1, 16, *size),
    )


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel", [3, 2])
def test_padding_by_word(padding: str, kernel: int) -> None:
    weight = drawn(8, 6, kernel, kernel, kernel)

    def call(x: Tensor, dtype: torch.dtype) -> Tensor:
        return functional.conv3d(x, weight.to(dtype), padding=padding)

    if padding == "same" and kernel == 2:
        with pytest.warns(UserWarning, match="even kernel"):
            check(call, drawn(*SHAPE))
    else:
        check(call, drawn(*SHAPE))


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
@pytest.mark.parametrize("batch", [1, 2])
def test_norms(affine: bool, batch: int) -> None:
    weight, bias, mean = (drawn(6) if affine else None), (drawn(6) if affine else None), drawn(6)
    spread = drawn(6).abs() + 0.5
    x = 3 * drawn(batch, *SHAPE[1:]) + 5

    def to(value: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        return None if value is None else value.to(dtype)

    check(
        lambda x, dtype: functional.batch_norm(
            x, mean.to(dtype), spread.to(dtype), to(weight, dtype), to(bias, dtype), eps=0.01
        ),
        x,
    )
    check(
        lambda x, dtype: functional.instance_norm(
            x, weight=to(weight, dtype), bias=to(bias, dtype), eps=0.01
        ),
        x,
    )
    check(
        lambda x, dtype: functional.batch_norm(
            x, None, None, to(weight, dtype), to(bias, dtype), training=True, eps=0.01
        ),
        x,
    )


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_group_norm(groups: int) -> None:
    weight, bias = drawn(6), drawn(6)
    check(
        lambda x, dtype: functional.group_norm(
            x, groups, weight.to(dtype), bias.to(dtype), eps=0.01
        ),
        3 * drawn(*SHAPE) + 5,
    )


@pytest.mark.parametrize("groups", [2, 6])
def test_a_norm_far_from_zero_is_as_exact_as_stock_torchs(groups: int) -> None:
    x = 1000 + drawn(1, 6, 20, 30, 25)
    expected = functional.group_norm(x.double(), groups)
    stock = relative(functional.group_norm(x, groups).double(), expected)
    with FastPath():
        found = functional.group_norm(x.contiguous(memory_format=CHANNELS_LAST), groups)
    assert relative(found.double(), expected) <= max(2 * stock, 1e-6)


@pytest.mark.parametrize("size", [(24, 96, 80), (61, 37, 53)], ids=["even", "odd"])
@pytest.mark.parametrize("norm", ["batch", "instance", "group", "fixed"])
def test_norms_of_large_images(norm: str, size: tuple[int, ...]) -> None:
    """Sums over a whole image; torch's own channels-last batch norm is off by 1e-4 here."""
    x = drawn(1, 4, *size) + 1
    mean, variance = drawn(4), drawn(4).square() + 0.5
    calls: dict[str, Callable[[Tensor, torch.dtype], Tensor]] = {
        "batch": lambda x, dtype: functional.batch_norm(x, None, None, training=True),
        "instance": lambda x, dtype: functional.instance_norm(x),
        "group": lambda x, dtype: functional.group_norm(x, 2),
        "fixed": lambda x, dtype: functional.batch_norm(x, mean.to(dtype), variance.to(dtype)),
    }
    check(calls[norm], x)


@pytest.mark.parametrize("tracking", [False, True])
def test_own_statistics_without_a_kernel_are_accurate(tracking: bool) -> None:
    """Batch norms with learned weights or running statistics go to torch, channels first."""
    x = drawn(1, 4, 24, 96, 80) + 1
    weight = torch.ones(4, requires_grad=not tracking)
    running = (torch.zeros(4), torch.ones(4)) if tracking else (None, None)
    with NormGradients(), FastPath():
        laid = x.contiguous(memory_format=CHANNELS_LAST)
        found = functional.batch_norm(laid, running[0], running[1], weight, training=True)
    expected = (x.double() - x.double().mean((2, 3, 4), keepdim=True)) / (
        x.double().var((2, 3, 4), correction=0, keepdim=True) + 1e-5
    ).sqrt()
    assert relative(found.detach().double(), expected) <= 2e-6
    assert running[0] is None or bool((running[0] != 0).all())


def test_torch_still_sends_small_convolutions_the_slow_way() -> None:
    """If this fails, torch has mended it: measure with benchmarks/convolutions.py, then decide."""
    x, weight = torch.zeros(1, 64, 12, 12, 12), torch.zeros(64, 64, 3, 3, 3)
    geometry = ([1] * 3, [1] * 3, [1] * 3, False, [0] * 3, 1)
    assert torch._C._select_conv_backend(x, weight, None, *geometry).name == "Slow3d"
    twice = x.expand(2, *x.shape[1:])
    assert torch._C._select_conv_backend(twice, weight, None, *geometry).name == "Mkldnn"


def test_what_the_twins_are_not_made_for_goes_to_stock_torch() -> None:
    network = nn.Identity()
    five = torch.zeros(1, 2, 4, 5, 6)
    assert is_fast(five, network)
    assert not is_fast(five.double(), network)
    assert not is_fast(torch.zeros(1, 2, 4, 5), network)
    assert not is_fast(torch.zeros(1, 2, 4, 5, 6, device="meta"), network)
    weight = drawn(8, 6, 3, 3, 3).requires_grad_()
    with FastPath():
        learns = functional.conv3d(drawn(*SHAPE), weight)
    (gradient,) = torch.autograd.grad(learns.sum(), weight)
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


@pytest.mark.parametrize(
    "call",
    [
        lambda x, w: F.conv3d(x, w, stride="two"),
        lambda x, w: F.conv3d(x, w, padding=[1, 1]),
        lambda x, w: F.conv3d(x, w, padding="most"),
        lambda x, w: F.conv3d(x, w[0]),
        lambda x, w: F.conv3d(x, None),
        lambda x, w: F.conv_transpose3d(x, w, output_padding=(1, 2)),
        lambda x, w: F.group_norm(x, 2.0),
        lambda x, w: F.interpolate(x, scale_factor="two"),
        lambda x, w: F.batch_norm(x[:1, :, :1, :1, :1], None, None, training=True),
    ],
)
def test_an_invalid_call_raises_the_error_of_stock_torch(call: Any) -> None:
    x, weight = drawn(*SHAPE), drawn(8, 6, 3, 3, 3)
    with pytest.raises((TypeError, ValueError, RuntimeError)) as stock:
        call(x, weight)
    with FastPath(), pytest.raises(stock.type) as fast:
        call(x, weight)
    assert str(fast.value) == str(stock.value)


def test_numbers_of_numpy_are_numbers() -> None:
    weight, two = drawn(8, 6, 3, 3, 3), np.int64(2)
    check(lambda x, dtype: F.conv3d(x, weight.to(dtype), stride=two), drawn(*SHAPE))


def test_the_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    x, network = torch.zeros(1, 2, 4, 5, 6), nn.Identity()
    with stock_torch():
        assert not is_fast(x, network)
    assert is_fast(x, network)
    monkeypatch.setenv(STOCK_TORCH_VARIABLE, "1")
    assert not is_fast(x, network)
    monkeypatch.setenv(STOCK_TORCH_VARIABLE, "0")
    assert is_fast(x, network)


class Viewing(nn.Module):
    """Depends on how a convolution's result lies in memory, in one of four ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.passes = how, 0
        self.conv = nn.Conv3d(2, 3, 3, padding=1)
        self.head = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
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
def test_a_network_that_depends_on_the_layout_falls_back(how: str) -> None:
    network = seeded(0, lambda: Viewing(how))
    x = drawn(2, 2, 4, 5, 6)
    with stock_torch():
        expected = explain("vanilla_gradient", network, x)
    assert isinstance(network, Viewing)
    network.passes = 0
    first = explain("vanilla_gradient", network, x)
    tried = network.passes
    second = explain("vanilla_gradient", network, x)
    assert relative(first.values, expected.values) <= 1e-5
    assert relative(second.values, expected.values) <= 1e-5
    depends = how != "reshape"
    assert is_fast(x, network) is not depends
    assert tried == (2 if depends else 1)
    assert network.passes == tried + 1


def test_a_failed_try_is_not_counted() -> None:
    network, x = seeded(0, lambda: Viewing("view")), drawn(2, 2, 4, 5, 6)
    probe = WholeVolume(network, Class(1))
    with probe.at(x, [InputGradient()]):
        probe.gradient(x)
    assert (probe.passes.forward, probe.passes.backward, probe.passes.gradients) == (1, 1, 2)


def test_a_networks_own_fault_comes_up_as_it_is() -> None:
    class Faulty(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("my own fault")

    with pytest.raises(RuntimeError, match="my own fault"):
        run_fast(Faulty(), drawn(*SHAPE), Faulty())


def test_a_checkpointed_segment_falls_back() -> None:
    """It is run again outside the mode, and torch notices that other tensors are kept."""

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
def test_every_method_gives_the_map_of_stock_torch(name: str, task: str) -> None:
    network, x = make(task, 3), image(3)
    assert x.dtype == torch.float32
    found = explain(name, network, x)
    with stock_torch():
        expected = explain(name, network, x)
    assert is_fast(x, network), "a fallback would prove nothing"
    assert relative(found.values, expected.values) <= 0.01
    assert found.score == pytest.approx(expected.score, rel=1e-4)
    assert found.values.is_contiguous()


def test_every_layers_map_is_that_of_stock_torch() -> None:
    network, x = make("segmenter", 3), image(3)
    found = information_flow(network, x, [Class(0), Class(2)])
    with stock_torch():
        expected = information_flow(network, x, [Class(0), Class(2)])
    assert found.layers == expected.layers
    for got, want in zip(found.targets, expected.targets, strict=True):
        for layer in want.maps:
            assert relative(got.maps[layer], want.maps[layer]) <= 0.01


def test_nothing_of_the_input_is_kept_but_what_a_gradient_needs() -> None:
    kept: list[Tensor] = []
    x = drawn(1, 6, 8, 9, 10).requires_grad_()
    weight = drawn(8, 6, 3, 3, 3)

    def pack(t: Tensor) -> Tensor:
        kept.append(t)
        return t

    with FastPath(), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = functional.conv3d(x, weight, padding=1)
        functional.batch_norm(y, torch.zeros(8), torch.ones(8))
    assert max(t.numel() for t in kept) <= weight.numel()


@pytest.mark.parametrize("dims", [2, 3])
def test_shapes_of_this_suite_are_not_cubic(dims: int) -> None:
    assert len(set(SHAPES[dims])) == dims


@pytest.mark.parametrize("transposed", [False, True])
def test_weights_that_a_network_computes_are_not_kept_beyond_their_pass(transposed: bool) -> None:
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


def test_a_weight_that_is_put_elsewhere_is_laid_anew() -> None:
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


def as_in_stock_torch(network: nn.Module, x: Tensor) -> None:
    found = plain_gradient(network, x)
    with stock_torch():
        expected = plain_gradient(network, x)
    assert is_fast(x, network), "a fallback would prove nothing"
    assert relative(found, expected) <= 1e-5


def test_checkpointed_blocks_give_the_gradient_of_stock_torch() -> None:
    network, x = seeded(6, TwoBlocks), drawn(1, 2, 12, 10, 14)
    as_in_stock_torch(network, x)
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
    as_in_stock_torch(network, x)


def test_repeated_gradients_are_equal_to_the_bit() -> None:
    network, x = make("classifier", 3), image(3)
    assert torch.equal(plain_gradient(network, x), plain_gradient(network, x))
