"""Single convolutions: the channels-last kernels against stock torch, forward and backward.

python benchmarks/convolutions.py [--rounds 7]

The shapes are those of DeepSeg at 128³, and others for which torch uses different kernels. Run it
on a new release of torch to see whether the kernels are still faster.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from measure import Row, Table, interleave, median
from torch import Tensor
from torch.nn import functional

import neuroxai as nx
from neuroxai.core.engine.converted_weights import CHANNELS_LAST
from neuroxai.core.engine.fast_path import FastPath

SHAPES = {
    "8 to 8, 128³": ((8, 128, 128, 128), (8, 8, 3, 3, 3), 1, 1),
    "4 to 8, 128³": ((4, 128, 128, 128), (8, 4, 3, 3, 3), 1, 1),
    "12 to 8, 128³": ((12, 128, 128, 128), (8, 12, 3, 3, 3), 1, 1),
    "16 to 16, 64³": ((16, 64, 64, 64), (16, 16, 3, 3, 3), 1, 1),
    "64 to 64, 16³ (slow_conv3d)": ((64, 16, 16, 16), (64, 64, 3, 3, 3), 1, 1),
    "128 to 128, 6³ (slow_conv3d)": ((128, 6, 6, 6), (128, 128, 3, 3, 3), 1, 1),
    "32 to 64, 24³, stride 2": ((32, 24, 24, 24), (64, 32, 3, 3, 3), 2, 1),
    "16 to 16, 24³, dilation 2 (slow_conv_dilated3d)": (
        (16, 24, 24, 24), (16, 16, 3, 3, 3), 1, 2,
    ),
    "16 to 16, 32³, 4 groups": ((16, 32, 32, 32), (16, 4, 3, 3, 3), 1, 1),
}  # fmt: skip


def forward_and_backward(x: Tensor, weight: Tensor, stride: int, dilation: int) -> None:
    """Run one convolution forward, and backward to its input."""
    leaf = x.detach().requires_grad_()
    groups = x.shape[1] // weight.shape[1]
    y = functional.conv3d(leaf, weight, None, stride, dilation, dilation, groups)
    torch.autograd.grad(y, leaf, torch.ones_like(y))


def in_mode(mode: FastPath, work: Callable[[], None]) -> None:
    """Run a function on the fast path."""
    with mode:
        work()


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    nx.tune_allocator()
    table = Table("convolutions")
    for name, (shape, kernel, stride, dilation) in SHAPES.items():
        x, weight = torch.randn(1, *shape), torch.randn(kernel)
        last = x.contiguous(memory_format=CHANNELS_LAST)

        stock = partial(forward_and_backward, x, weight, stride, dilation)
        ours = partial(
            in_mode, FastPath(), partial(forward_and_backward, last, weight, stride, dilation)
        )
        times = interleave({"ours": ours, "stock": stock}, arguments.rounds)
        table.add(Row(f"convolution, {name}", "stock torch", 1000 * median(times["ours"]),
                      1000 * median(times["stock"]), "ms"))  # fmt: skip
    table.write()


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
