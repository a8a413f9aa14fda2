r"""Channels joined, as skips are in a U-Net; their gradients keep no more than themselves.

The gradient of a part is a cut of the whole one's channels. Stock torch gives a view, which holds
the whole gradient in memory until the skip's other end is reached, at the very end for the first
level; here all parts but the largest, which is what was decoded, are copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def join_channels(parts: Sequence[Tensor]) -> Tensor:
    """Return ``torch.cat(parts, dim=1)`` of parts ``(B, C, *S)``."""
    given: Tensor = _Joined.apply(*parts)  # type: ignore[no-untyped-call]
    return given


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        ctx.channels = [part.shape[1] for part in parts]
        return torch.cat(parts, dim=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        largest = ctx.channels.index(max(ctx.channels))
        wanted = ctx.needs_input_grad
        return tuple(
            None if not wanted[k] else cut if k == largest else cut.clone()
            for k, cut in enumerate(gradient.split(ctx.channels, dim=1))
        )
