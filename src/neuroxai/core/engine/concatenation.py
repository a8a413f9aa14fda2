"""Concatenation of channels, as for the skip connections of a U-Net, with lean gradients.

The gradient of a part is a slice of the whole gradient's channels. Stock torch returns a view. It
keeps the whole gradient in memory until backpropagation reaches the start of the skip connection,
which for the first level of a U-Net is at the very end. Here, all parts but the largest (the
decoder's) are copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def concatenate_channels(parts: Sequence[Tensor]) -> Tensor:
    """Return ``torch.cat(parts, dim=1)`` for parts ``(B, C, *S)``."""
    joined: Tensor = _Concatenation.apply(*parts)  # type: ignore[no-untyped-call]
    return joined


class _Concatenation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        ctx.channels = [part.shape[1] for part in parts]
        return torch.cat(parts, dim=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        largest = ctx.channels.index(max(ctx.channels))
        slices = gradient.split(ctx.channels, dim=1)
        return tuple(
            (each if k == largest else each.clone()) if ctx.needs_input_grad[k] else None
            for k, each in enumerate(slices)
        )
