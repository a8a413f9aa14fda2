"""Windows over an image, and the blended answer of a network that sees one at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from neuroxai.core.errors import ModelError
from neuroxai.core.spatial import spatial_shape


@dataclass(frozen=True, eq=False)
class Windows:
    r"""How an image is cut into overlapping windows, and their answers put together.

    .. math:: z = \frac{\sum_i w_i \, f(x_i)}{\sum_i w_i}

    at every voxel, over the windows i that hold it. An image smaller than a window is padded with
    zeros on both sides, what is odd at the end.

    Parameters
    ----------
    size
        The window, ``(*S)`` in voxels.
    weights
        ``(*S)``, above 0: how much a window's answer counts at each of its voxels.
    overlap
        The share of a window's edge that its neighbor holds too, 0 to below 1.
    divisor
        Before it is cut, every axis of an image is padded to a multiple of this.
    even
        Spread the windows evenly from edge to edge, as nnU-Net does; else step by the same length
        and pull the last one back, as MONAI does.

    Examples
    --------
    >>> Windows((4,), torch.ones(4), overlap=0.5).starts((7,))
    ((0,), (2,), (3,))
    >>> Windows((4,), torch.ones(4), overlap=0.5, even=True).starts((9,))
    ((0,), (2,), (3,), (5,))
    """

    size: tuple[int, ...]
    weights: Tensor
    overlap: float
    even: bool = False
    divisor: int = 1

    def __post_init__(self) -> None:
        if tuple(self.weights.shape) != self.size or not bool((self.weights > 0).all()):
            raise ModelError(
                f"windows of {self.size} have weights of {tuple(self.weights.shape)}, expected as "
                "many, all above 0"
            )
        if not 0 <= self.overlap < 1 or min(self.size) < 1:
            raise ModelError(
                f"windows of {self.size} with an overlap of {self.overlap}, expected positive "
                "lengths and 0 to below 1"
            )

    def starts(self, shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Return every window's first voxel in an image that is no smaller than a window."""
        place = _evenly if self.even else _stepped
        axes = [place(n, k, self.overlap) for n, k in zip(shape, self.size, strict=True)]
        return tuple(itertools.product(*axes))

    def over(self, shape: Sequence[int]) -> Laid:
        """Return the windows as they lie over an image of ``shape``."""
        if len(shape) != len(self.size):
            raise ModelError(
                f"windows of {self.size} do not cover an image of {tuple(shape)}: give it as many "
                "axes"
            )
        missing = [max(k - n, 0) for n, k in zip(shape, self.size, strict=True)]
        before = tuple(lack // 2 for lack in missing)
        padded = tuple(n + lack for n, lack in zip(shape, missing, strict=True))
        return Laid(self, tuple(shape), padded, before)

    def describe(self) -> dict[str, Any]:
        """Return all but the weights as plain numbers."""
        same = bool((self.weights == self.weights.flatten()[0]).all())
        return {
            "size": list(self.size),
            "overlap": self.overlap,
            "placed": "evenly" if self.even else "stepped",
            "weights": "constant" if same else "highest in the middle",
        }


class Laid:
    """Windows over images of one shape.

    Parameters
    ----------
    windows
        Their size and weights.
    shape, padded, before
        The image, the padded image, and how much of the padding comes first.
    """

    def __init__(
        self,
        windows: Windows,
        shape: tuple[int, ...],
        padded: tuple[int, ...],
        before: tuple[int, ...],
    ) -> None:
        self._windows = windows
        self.shape, self.padded, self.before = shape, padded, before
        self._slices: list[Any] = [
            (..., *(slice(a, a + k) for a, k in zip(start, windows.size, strict=True)))
            for start in windows.starts(padded)
        ]
        self._total = torch.zeros(padded)
        for cut in self._slices:
            self._total[cut] += windows.weights

    def __len__(self) -> int:
        return len(self._slices)

    def __iter__(self) -> Iterator[Any]:
        """Give every window as an index into the padded image."""
        return iter(self._slices)

    @property
    def size(self) -> tuple[int, ...]:
        """The size of a window."""
        return self._windows.size

    @property
    def first(self) -> Any:
        """The first window."""
        return self._slices[0]

    def pad(self, x: Tensor) -> Tensor:
        """Return ``(..., *S)`` padded with zeros."""
        sides: list[int] = []
        for n, m, first in reversed(list(zip(self.shape, self.padded, self.before, strict=True))):
            sides += [first, m - n - first]
        return functional.pad(x, sides) if any(sides) else x

    def crop(self, x: Tensor) -> Tensor:
        """Return what :meth:`pad` was given."""
        inside = zip(self.before, self.shape, strict=True)
        cut: Any = (..., *(slice(first, first + n) for first, n in inside))
        return x[cut]

    def share(self, cut: Any) -> Tensor:
        """Return a window's weights over the sum of all, ``(*S)``."""
        return self._windows.weights / self._total[cut]

    def blend(self, x: Tensor, answer: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the blended answers ``(B, K, *S)`` to all windows of ``x`` ``(B, C, *S)``.

        Raises
        ------
        ModelError
            If an answer does not lie on its window.
        """
        padded = self.pad(x)
        blended = torch.zeros(0)
        for number, cut in enumerate(self):
            found = answer(padded[cut])
            check_answer(found, self._windows.size)
            if number == 0:
                blended = found.new_zeros((*found.shape[:2], *self.padded))
            blended[cut].addcmul_(self.share(cut).to(found), found)
        return self.crop(blended)


def check_answer(answer: Tensor, size: Sequence[int]) -> None:
    """Refuse an answer that does not lie on its window.

    Raises
    ------
    ModelError
        Saying what came back.
    """
    if spatial_shape(answer) != tuple(size):
        raise ModelError(
            f"the network answers a window of {tuple(size)} with {tuple(answer.shape)}, expected "
            "(batch, classes, *window): only segmenters can look through windows"
        )


def _stepped(length: int, size: int, overlap: float) -> list[int]:
    step = size if size == length else max(int(size * (1 - overlap)), 1)
    count = ceil(max(length - size, 0) / step) + 1
    return [min(i * step, length - size) for i in range(count)]


def _evenly(length: int, size: int, overlap: float) -> list[int]:
    last = length - size
    count = ceil(last / (size * (1 - overlap))) + 1
    return [round(last * i / (count - 1)) if count > 1 else 0 for i in range(count)]
