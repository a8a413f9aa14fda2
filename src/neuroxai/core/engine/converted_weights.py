"""Convolution weights converted to the formats that the fast kernels need."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

CHANNELS_LAST = torch.channels_last_3d

_BLOCK = 8
"""oneDNN computes channels in blocks of eight; padding to them is measured in decision 17."""

_Format = Literal["forward", "backward", "backward, paired"]
_Version = tuple[int, int]
"""A weight's version counter and address, by which a change is noticed."""


class ConvertedWeights:
    """Cache of converted weights, for as long as a network is frozen.

    An entry is dropped when its weight is freed, as the weights that a network computes in every
    pass are (weight norm).
    """

    def __init__(self) -> None:
        self._cache: dict[tuple[int, _Format], tuple[weakref.ref[Tensor], _Version, Tensor]] = {}

    def __len__(self) -> int:
        return len(self._cache)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weights in channels-last format."""
        return self._get(weight, "forward", lambda plain: plain)

    def backward(self, weight: Tensor, groups: int) -> Tensor:
        """Return the weights of the convolution that maps the output's gradient to the input's.

        They are flipped along every spatial axis, with input and output channels exchanged within
        each group. With one group, more than eight channels are padded with zeros to a multiple of
        eight.
        """

        def convert(plain: Tensor) -> Tensor:
            flipped = _flipped(plain, groups)
            extra = -len(flipped) % _BLOCK if groups == 1 and len(flipped) > _BLOCK else 0
            return functional.pad(flipped, (0, 0) * 4 + (0, extra))

        return self._get(weight, "backward", convert)

    def backward_paired(self, weight: Tensor) -> Tensor:
        """Return the same for two neighbors along the width: all channels of one, then the other.

        The second neighbor's weights are the first one's, shifted by a voxel.
        """

        def convert(plain: Tensor) -> Tensor:
            flipped = _flipped(plain, 1)
            return torch.cat([functional.pad(flipped, (0, 1)), functional.pad(flipped, (1, 0))])

        return self._get(weight, "backward, paired", convert)

    def _get(self, weight: Tensor, form: _Format, convert: Callable[[Tensor], Tensor]) -> Tensor:
        key, version = (id(weight), form), (weight._version, weight.data_ptr())
        cached = self._cache.get(key)
        if cached is not None and cached[0]() is weight and cached[1] == version:
            return cached[2]
        converted = convert(weight.detach()).contiguous(memory_format=CHANNELS_LAST)
        # An id may be reused once its object is freed.
        self._cache[key] = (weakref.ref(weight, partial(self._drop, key)), version, converted)
        return converted

    def _drop(self, key: tuple[int, _Format], freed: weakref.ref[Tensor]) -> None:
        cached = self._cache.get(key)
        if cached is not None and cached[0] is freed:
            del self._cache[key]


def _flipped(weight: Tensor, groups: int) -> Tensor:
    exchanged: Tensor = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    return exchanged.flip(2, 3, 4)
