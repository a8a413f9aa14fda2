"""What a pass through a network will take of memory, found out on a smaller image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor

from neuroxai.core.engine.memory import is_shortage
from neuroxai.core.errors import NETWORK_ERRORS
from neuroxai.core.spatial import spatial_shape

_STEP = 32
"""Networks that divide their image by two divide it five times at most, nearly all of them."""

_SHARES = (1 / 2, 1 / 4, 1 / 8)
"""Of each axis, in the order they are tried while memory runs out."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that one forward and one backward pass take, for every voxel of the image.

    Attributes
    ----------
    per_voxel
        At the peak, in what is kept for the backward pass and in what is at work then.
    """

    per_voxel: float

    def of(self, x: Tensor) -> int:
        """Return the bytes for an input ``(B, C, *S)``."""
        return int(self.per_voxel * x.shape[0] * prod(spatial_shape(x)))


def footprint(take: Callable[[Tensor], Any], x: Tensor) -> Footprint | None:
    """Return what ``take(x)`` will take of memory, from a run on a part of ``x``.

    The tensors that autograd keeps are counted while it holds them. What is at work besides, the
    input and output of an operation and the gradients between, is counted as three times the
    largest of them.

    Parameters
    ----------
    take
        One forward and one backward pass.
    x
        ``(B, C, *S)``; up to half of each axis of one sample is used, and less where memory runs
        out on that already.

    Returns
    -------
    None where the network takes no smaller image.
    """
    for share in _SHARES:
        small = middle_part(x, share)
        kept = _Kept()
        try:
            with torch.autograd.graph.saved_tensors_hooks(kept.take, kept.give):
                take(small)
        except NETWORK_ERRORS as no:
            if is_shortage(no):
                continue
            return None
        voxels = prod(spatial_shape(small))
        return Footprint((kept.peak + 3 * kept.largest + 3 * small.nbytes) / voxels)
    return None


def middle_part(x: Tensor, share: float) -> Tensor:
    """Return the middle of the first sample, about a ``share`` of each axis, 32 voxels at least."""
    cut: list[slice] = [slice(0, 1), slice(None)]
    for n in spatial_shape(x):
        length = min(n, max(_STEP, ceil(n * share / _STEP) * _STEP))
        first = (n - length) // 2
        cut.append(slice(first, first + length))
    return x[tuple(cut)].contiguous()


class _Kept:
    """Counts the tensors that autograd keeps, each memory once, for as long as it keeps them."""

    def __init__(self) -> None:
        self.now = self.peak = self.largest = 0
        self._holders: dict[int, int] = {}

    def take(self, tensor: Tensor) -> _Held:
        key, size = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
        if not self._holders.get(key):
            self.now += size
            self.peak = max(self.peak, self.now)
            self.largest = max(self.largest, tensor.nbytes)
        self._holders[key] = self._holders.get(key, 0) + 1
        return _Held(self, tensor, key, size)

    def let_go(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            self.now -= size

    @staticmethod
    def give(held: _Held) -> Tensor:
        return held.tensor


class _Held:
    def __init__(self, kept: _Kept, tensor: Tensor, key: int, size: int) -> None:
        self.tensor = tensor
        self._kept, self._key, self._size = kept, key, size

    def __del__(self) -> None:
        self._kept.let_go(self._key, self._size)
