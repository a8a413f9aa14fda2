r"""Nearest-neighbor upsampling with a channels-last gradient.

Every voxel is repeated, so its gradient is the sum over its copies,

.. math:: \frac{\partial S}{\partial x_v} = \sum_{u \in C(v)} \frac{\partial S}{\partial y_u}.

Stock torch converts the gradient to channels first for this sum. Here, neighbors are added along
one axis after the other, in the memory order of the incoming gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_HALVINGS = {1: 0, 2: 1, 4: 2}
"""Factor to number of halvings. For other factors, torch's rounding may repeat voxels unevenly."""


def upsample_nearest(
    x: Tensor, size: int | Sequence[int] | None, scale_factor: float | Sequence[float] | None
) -> Tensor | None:
    """Return ``interpolate(x, size, scale_factor)`` for ``x`` ``(B, C, D, H, W)``.

    Return None for an invalid call, and if an axis is scaled by another factor than 1, 2 or 4.
    """
    if size is not None and scale_factor is None:
        factors = [after / before for after, before in zip(_each(size), x.shape[2:], strict=False)]
    elif scale_factor is not None and size is None:
        factors = _each(scale_factor)
    else:
        return None
    if len(factors) != 3 or not all(factor in _HALVINGS for factor in factors):
        return None
    y: Tensor = _Upsampling.apply(x, [int(factor) for factor in factors])  # type: ignore[no-untyped-call]
    return y


def _each(value: float | Sequence[float]) -> list[float]:
    return [*value] if isinstance(value, Sequence) else [value] * 3


class _Upsampling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factors: list[int]) -> Tensor:
        ctx.factors = factors
        size = [length * factor for length, factor in zip(x.shape[2:], factors, strict=True)]
        return functional.interpolate(x, size=size)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        for axis, factor in enumerate(ctx.factors, start=2):
            for _ in range(_HALVINGS[factor]):
                pairs = gradient.unflatten(axis, (-1, 2))
                gradient = pairs.select(axis + 1, 0) + pairs.select(axis + 1, 1)
        return gradient, None
