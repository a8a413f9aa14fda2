"""Accuracy of the fast kernels and of stock torch against double precision, forward and backward.

python benchmarks/kernel_accuracy.py [--size 128 128 128]

One line per kernel and image size: the largest error of the output or of the input's gradient,
relative to the largest value. The sizes are those of a whole brain, even and odd. The script fails
if a kernel exceeds the bound.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from neuroxai.core.engine.converted_weights import CHANNELS_LAST
from neuroxai.core.engine.fast_path import FastPath
from neuroxai.core.engine.norm_gradients import NormGradients

SIZES = ((128, 128, 128), (134, 176, 140), (131, 97, 61))

BOUND = 5e-6
"""The resolution of single precision is 6e-8; sums of 27 to 432 products lose one or two digits."""

Call = Callable[[Tensor], Tensor]
Make = Callable[[torch.dtype], Call]


def drawn(*shape: int) -> Tensor:
    """Return normal random numbers that depend only on the shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def _convolution(channels: int, stride: int = 1, dilation: int = 1, groups: int = 1) -> Make:
    weight, bias = drawn(8, channels // groups, 3, 3, 3), drawn(8)
    return lambda dtype: (
        lambda x: functional.conv3d(
            x, weight.to(dtype), bias.to(dtype), stride, dilation, dilation, groups
        )
    )


def _transposed(channels: int) -> Make:
    weight = drawn(channels, 4, 2, 2, 2)
    return lambda dtype: lambda x: functional.conv_transpose3d(x, weight.to(dtype), stride=2)


def _fixed_norm(channels: int) -> Make:
    mean, variance, weight = drawn(channels), drawn(channels).square() + 0.5, drawn(channels)
    return lambda dtype: (
        lambda x: functional.batch_norm(x, mean.to(dtype), variance.to(dtype), weight.to(dtype))
    )


KERNELS: dict[str, tuple[int, Make]] = {
    "convolution, 8 to 8": (8, _convolution(8)),
    "convolution, 4 to 8": (4, _convolution(4)),
    "convolution, 12 to 8": (12, _convolution(12)),
    "convolution, stride 2": (8, _convolution(8, stride=2)),
    "convolution, dilation 2": (8, _convolution(8, dilation=2)),
    "convolution, 4 groups": (8, _convolution(8, groups=4)),
    "transposed convolution": (4, _transposed(4)),
    "batch norm, fixed statistics": (8, _fixed_norm(8)),
    "batch norm, own statistics": (
        4, lambda dtype: lambda x: functional.batch_norm(x, None, None, training=True),
    ),
    "instance norm": (4, lambda dtype: functional.instance_norm),
    "group norm": (4, lambda dtype: lambda x: functional.group_norm(x, 2)),
    "nearest upsampling": (2, lambda dtype: lambda x: functional.interpolate(x, scale_factor=2)),
    "concatenation": (4, lambda dtype: lambda x: torch.cat([x.sin(), x[:, :2]], dim=1)),
}  # fmt: skip


def forward_and_backward(call: Call, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output, and the gradient of a fixed weighted sum of it."""
    leaf = x.detach().requires_grad_()
    y = call(leaf)
    weights = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).sin().view(y.shape).to(y.dtype)
    return y.detach(), torch.autograd.grad(y, leaf, weights)[0]


def largest_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest error relative to the largest value."""
    return max(
        float((got.double() - want).abs().max() / want.abs().max())
        for got, want in zip(found, expected, strict=True)
    )


def main() -> None:
    """Print all errors."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, nargs=3, action="append")
    sizes = parser.parse_args().size or SIZES
    largest = 0.0
    print(f"{'kernel':<30} {'size':>12} {'ours':>8} {'stock':>8}")
    for size in sizes:
        for name, (channels, make) in KERNELS.items():
            x = drawn(1, channels, *size) + 1
            last = x.contiguous(memory_format=CHANNELS_LAST)
            expected = forward_and_backward(make(torch.float64), x.double())
            stock = largest_error(forward_and_backward(make(torch.float32), x), expected)
            with NormGradients(), FastPath():
                ours = largest_error(forward_and_backward(make(torch.float32), last), expected)
            largest = max(largest, ours)
            row = f"{name:<30} {'x'.join(map(str, size)):>12} {ours:8.1e} {stock:8.1e}"
            print(row, flush=True)
    sys.exit(f"error {largest:.1e} exceeds the bound {BOUND:.0e}" if largest > BOUND else 0)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
