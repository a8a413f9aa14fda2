r"""Nearest-neighbor upsampling whose gradient keeps the channels last.

Every voxel is repeated, so the gradient of one is the sum over its copies,

.. math:: \frac{\partial S}{\partial x_v} = \sum_{u \in C(v)} \frac{\partial S}{\partial y_u}.

Stock torch turns the channels first for that sum and gives it so; here halves are added, axis by
axis, in the order that the gradient lies in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_HALVINGS = {1: 0, 2: 1, 4: 2}
"""Of other factors the products with a place may be rounded, and the copies another number."""


def repeat_nearest(
    x: Tensor, size: int | Sequence[int] | None, scale_factor: float | Sequence[float] | None
) -> Tensor | None:
    """Return ``interpolate(x, size, scale_factor)`` of ``(B, C, D, H, W)``.

    None where an axis does not become one, two or four times as long, and for a call that is wrong.
    """
    if size is not None and scale_factor is None:
        asked = [size] * 3 if isinstance(size, int) else size
        factors = [after / before for after, before in zip(asked, x.shape[2:], strict=False)]
    elif scale_factor is not None and size is None:
        factors = [*scale_factor] if isinstance(scale_factor, Sequence) else [scale_factor] * 3
    else:
        return None
    if len(factors) != 3 or not all(factor in _HALVINGS for factor in factors):
        return None
    given: Tensor = _Repeated.apply(x, [int(factor) for factor in factors])  # type: ignore[no-untyped-call]
    return given


class _Repeated(torch.autograd.Function):
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
