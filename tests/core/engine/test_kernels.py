"""Fast kernels against stock torch in double precision, forward and backward."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from networks import relative
from neuroxai.core.engine.converted_weights import CHANNELS_LAST
from neuroxai.core.engine.fast_path import FastPath, is_supported
from neuroxai.core.engine.norm_gradients import NormGradients

pytestmark = pytest.mark.skipif(not is_supported(), reason="the kernels are not verified here")

Call = Callable[[Tensor], Tensor]


SHAPE = (2, 6, 5, 7, 9)

F: Any = functional
"""Untyped, for calls that the stubs refuse."""


def output_and_gradient(call: Call, x: Tensor) -> tuple[Tensor, Tensor]:
    """The output and the gradient of a random mix of it."""
    leaf = x.detach().clone().requires_grad_()
    y = call(leaf)
    mix = torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).to(y)
    (gradient,) = torch.autograd.grad((y * mix).sum(), leaf)
    return y.detach(), gradient


def check(call: Callable[[Tensor, torch.dtype], Tensor], x: Tensor) -> None:
    """Compare a kernel with stock torch in double precision: output, gradient, both layouts."""
    expected = output_and_gradient(lambda x: call(x, torch.float64), x.double())
    for image in (x, x.contiguous(memory_format=CHANNELS_LAST)):
        with FastPath():
            found = output_and_gradient(lambda x: call(x, torch.float32), image)
            with torch.no_grad():
                without_graph = call(image, torch.float32)
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
    "options",
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
def test_upsampling(options: dict[str, Any], joined: bool) -> None:
    def call(x: Tensor, dtype: torch.dtype) -> Tensor:
        larger = functional.interpolate(x, **options)
        if joined:
            larger = torch.cat([larger, larger[:, :1] ** 2], dim=1) ** 2
        return larger

    check(call, drawn(*SHAPE))


INVALID = "size or scale_factor|spatial dimensions"


@pytest.mark.parametrize(
    "options",
    [{}, {"size": (10, 14, 18), "scale_factor": 2}, {"scale_factor": (2, 2)}, {"size": (10, 14)}],
    ids=str,
)
def test_an_invalid_upsampling_raises_the_error_of_stock_torch(options: dict[str, Any]) -> None:
    x = drawn(*SHAPE).requires_grad_()
    with pytest.raises(ValueError, match=INVALID) as stock:
        functional.interpolate(x, **options)
    with FastPath(), pytest.raises(ValueError, match=INVALID) as fast:
        functional.interpolate(x, **options)
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


def test_calls_that_a_kernel_does_not_support_go_to_stock_torch() -> None:
    """``axis`` is NumPy's name for ``dim``, which torch accepts although it is not documented."""
    cat: Any = torch.cat
    check(lambda x, dtype: cat([x, x.sin()], axis=1), drawn(*SHAPE))
    check(lambda x, dtype: cat([x, x.sin()], axis=3), drawn(*SHAPE))
    with FastPath(), pytest.raises(TypeError, match="depth"):
        cat([drawn(*SHAPE)], depth=1)


def test_the_gradient_of_a_skip_connection_does_not_keep_the_whole_gradient() -> None:
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
def test_convolutions_below_and_above_torchs_threshold(size: tuple[int, ...], stride: int) -> None:
    weight = drawn(8, 16, 3, 3, 3)
    check(
        lambda x, dtype: functional.conv3d(x, weight.to(dtype), None, stride, 1),
        drawn(1, 16, *size),
    )


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel", [3, 2])
def test_padding_by_name(padding: str, kernel: int) -> None:
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
def test_norms_far_from_zero_are_as_accurate_as_in_stock_torch(groups: int) -> None:
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
        last = x.contiguous(memory_format=CHANNELS_LAST)
        found = functional.batch_norm(last, running[0], running[1], weight, training=True)
    expected = (x.double() - x.double().mean((2, 3, 4), keepdim=True)) / (
        x.double().var((2, 3, 4), correction=0, keepdim=True) + 1e-5
    ).sqrt()
    assert relative(found.detach().double(), expected) <= 2e-6
    assert running[0] is None or bool((running[0] != 0).all())


def test_torch_still_runs_small_convolutions_slowly() -> None:
    """If this fails, torch was improved: measure with benchmarks/convolutions.py and decide."""
    x, weight = torch.zeros(1, 64, 12, 12, 12), torch.zeros(64, 64, 3, 3, 3)
    geometry = ([1] * 3, [1] * 3, [1] * 3, False, [0] * 3, 1)
    assert torch._C._select_conv_backend(x, weight, None, *geometry).name == "Slow3d"
    twice = x.expand(2, *x.shape[1:])
    assert torch._C._select_conv_backend(twice, weight, None, *geometry).name == "Mkldnn"


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


def test_numpy_integers_are_accepted() -> None:
    weight, two = drawn(8, 6, 3, 3, 3), np.int64(2)
    check(lambda x, dtype: F.conv3d(x, weight.to(dtype), stride=two), drawn(*SHAPE))


def test_kernels_save_no_more_than_the_weights() -> None:
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
