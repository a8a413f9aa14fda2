"""Memory footprint of a pass through a network, predicted from a smaller image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor

from neuroxai.core.engine.memory import is_out_of_memory
from neuroxai.core.errors import NETWORK_ERRORS
from neuroxai.core.spatial import spatial_shape

_STEP = 32
"""Crops are a multiple of this: nearly all networks downsample by two five times at most."""

_FRACTIONS = (1 / 2, 1 / 4, 1 / 8)
"""Fractions of each axis, in the order in which they are tried if memory runs out."""


@dataclass(frozen=True)
class Footprint:
    """Memory of one forward and one backward pass.

    Attributes
    ----------
    per_voxel
        Bytes per voxel of the image at the peak: saved for the backward pass, and temporary.
    """

    per_voxel: float

    def of(self, x: Tensor) -> int:
        """Return the bytes for an input ``(B, C, *S)``."""
        return int(self.per_voxel * x.shape[0] * prod(spatial_shape(x)))


def footprint(run: Callable[[Tensor], Any], x: Tensor) -> Footprint | None:
    """Predict the memory of ``run(x)`` by running it on a center crop of ``x``.

    The tensors saved by autograd are counted while they are alive. Temporary tensors (input and
    output of an operation, gradients between operations) are counted as three times the largest of
    them.

    Parameters
    ----------
    run
        One forward and one backward pass.
    x
        ``(B, C, *S)``; a crop of up to half of each axis of one sample is used, and a smaller one
        if memory runs out.

    Returns
    -------
    Footprint or None
        None if the network does not accept smaller images.
    """
    for fraction in _FRACTIONS:
        crop = center_crop(x, fraction)
        saved = _SavedTensors()
        try:
            with torch.autograd.graph.saved_tensors_hooks(saved.pack, saved.unpack):
                run(crop)
        except NETWORK_ERRORS as error:
            if is_out_of_memory(error):
                continue
            return None
        voxels = prod(spatial_shape(crop))
        return Footprint((saved.peak + 3 * saved.largest + 3 * crop.nbytes) / voxels)
    return None


def center_crop(x: Tensor, fraction: float) -> Tensor:
    """Return the center of the first sample: a fraction of each axis, but at least 32 voxels."""
    crop: list[slice] = [slice(0, 1), slice(None)]
    for n in spatial_shape(x):
        length = min(n, max(_STEP, ceil(n * fraction / _STEP) * _STEP))
        first = (n - length) // 2
        crop.append(slice(first, first + length))
    return x[tuple(crop)].contiguous()


class _SavedTensors:
    """Counts the bytes that autograd saves, each storage once, until they are freed."""

    def __init__(self) -> None:
        self.now = self.peak = self.largest = 0
        self._users: dict[int, int] = {}

    def pack(self, tensor: Tensor) -> _Saved:
        key, size = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
        if not self._users.get(key):
            self.now += size
            self.peak = max(self.peak, self.now)
            self.largest = max(self.largest, tensor.nbytes)
        self._users[key] = self._users.get(key, 0) + 1
        return _Saved(self, tensor, key, size)

    def release(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            self.now -= size

    @staticmethod
    def unpack(saved: _Saved) -> Tensor:
        return saved.tensor


class _Saved:
    def __init__(self, owner: _SavedTensors, tensor: Tensor, key: int, size: int) -> None:
        self.tensor = tensor
        self._owner, self._key, self._size = owner, key, size

    def __del__(self) -> None:
        self._owner.release(self._key, self._size)
