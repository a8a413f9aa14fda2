"""Overlapping windows over an image, and the output blended from them."""

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
    r"""Size, overlap and weights of windows whose outputs are blended.

    .. math:: z = \frac{\sum_i w_i \, f(x_i)}{\sum_i w_i}

    at every voxel, over the windows i that contain it. An image smaller than a window is padded
    with zeros on both sides; of an odd number, one more at the end.

    Parameters
    ----------
    size
        The window, ``(*S)`` in voxels.
    weights
        ``(*S)``, positive: the weight of a window's output at each of its voxels.
    overlap
        The fraction of a window's edge shared with its neighbor, from 0 to below 1.
    divisor
        Every axis of an image is padded to a multiple of this before it is cut.
    even
        Whether windows are spread evenly from edge to edge, as in nnU-Net, or at a fixed step with
        the last one moved back, as in MONAI.

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
                f"windows of {self.size} have weights of {tuple(self.weights.shape)}, expected the "
                "same shape and positive values"
            )
        if not 0 <= self.overlap < 1 or min(self.size) < 1:
            raise ModelError(
                f"windows of {self.size} with an overlap of {self.overlap}, expected positive "
                "lengths and an overlap from 0 to below 1"
            )

    def starts(self, shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Return the first voxel of every window in an image at least as large as a window."""
        place = _evenly if self.even else _stepped
        axes = [place(n, k, self.overlap) for n, k in zip(shape, self.size, strict=True)]
        return tuple(itertools.product(*axes))

    def place(self, shape: Sequence[int]) -> PlacedWindows:
        """Return the windows over an image of ``shape``.

        Raises
        ------
        ModelError
            If the image has another number of axes.
        """
        if len(shape) != len(self.size):
            raise ModelError(
                f"windows of {self.size} do not cover an image of {tuple(shape)}: give it as many "
                "axes"
            )
        missing = [max(k - n, 0) for n, k in zip(shape, self.size, strict=True)]
        before = tuple(lack // 2 for lack in missing)
        padded = tuple(n + lack for n, lack in zip(shape, missing, strict=True))
        return PlacedWindows(self, tuple(shape), padded, before)

    def describe(self) -> dict[str, Any]:
        """Return the settings for the provenance, with the weights in words."""
        same = bool((self.weights == self.weights.flatten()[0]).all())
        return {
            "size": list(self.size),
            "overlap": self.overlap,
            "placed": "evenly" if self.even else "stepped",
            "weights": "constant" if same else "highest in the middle",
        }


class PlacedWindows:
    """Windows over images of one shape.

    Parameters
    ----------
    windows
        Their size and weights.
    shape, padded, before
        The shapes of the image and the padded image, and the padding before the image.
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
        """Yield every window as an index into the padded image."""
        return iter(self._slices)

    @property
    def size(self) -> tuple[int, ...]:
        """The size of a window."""
        return self._windows.size

    @property
    def first(self) -> Any:
        """The first window, as an index into the padded image."""
        return self._slices[0]

    def pad(self, x: Tensor) -> Tensor:
        """Return ``(..., *S)`` padded with zeros."""
        sides: list[int] = []
        for n, m, first in reversed(list(zip(self.shape, self.padded, self.before, strict=True))):
            sides += [first, m - n - first]
        return functional.pad(x, sides) if any(sides) else x

    def crop(self, x: Tensor) -> Tensor:
        """Return the image's part of a padded tensor; the inverse of :meth:`pad`."""
        inner = zip(self.before, self.shape, strict=True)
        cut: Any = (..., *(slice(first, first + n) for first, n in inner))
        return x[cut]

    def share(self, cut: Any) -> Tensor:
        """Return a window's weights divided by the sum over all windows, ``(*S)``."""
        return self._windows.weights / self._total[cut]

    def touching(self, mask: Tensor) -> list[Any]:
        """Return the windows in which a mask ``(B, *S)`` has a nonzero voxel; all if it has none.

        Examples
        --------
        >>> placed = Windows((4,), torch.ones(4), overlap=0.5).place((10,))
        >>> len(placed), placed.touching(torch.arange(10)[None] < 2)
        (4, [(Ellipsis, slice(0, 4, None))])
        """
        padded = self.pad((mask != 0).any(dim=0).to(torch.uint8))
        return [cut for cut in self if bool(padded[cut].any())] or list(self)

    def blend(
        self, x: Tensor, run: Callable[[Tensor], Tensor], cuts: Sequence[Any] | None = None
    ) -> Tensor:
        """Return the blended results ``(B, K, *S)`` of ``run`` on the windows of an image.

        Parameters
        ----------
        x
            The image ``(B, C, *S)``.
        run
            Returns ``(B, K, *window)`` for a window of the image.
        cuts
            The windows to run; all by default. Without the others, the result is that of all
            windows where no other one reaches, and partial or zero elsewhere.

        Raises
        ------
        ModelError
            If a result does not have the window's size.
        """
        padded = self.pad(x)
        blended = torch.zeros(0)
        for number, cut in enumerate(self if cuts is None else cuts):
            found = run(padded[cut])
            check_window_output(found, self._windows.size)
            if number == 0:
                blended = found.new_zeros((*found.shape[:2], *self.padded))
            blended[cut].addcmul_(self.share(cut).to(found), found)
        return self.crop(blended)


def check_window_output(output: Tensor, size: Sequence[int]) -> None:
    """Raise if the output for a window does not have the window's size.

    Raises
    ------
    ModelError
        Naming both shapes.
    """
    if spatial_shape(output) != tuple(size):
        raise ModelError(
            f"the network returns {tuple(output.shape)} for a window of {tuple(size)}, expected "
            "(batch, classes, *window): only segmenters can be run in windows"
        )


def _stepped(length: int, size: int, overlap: float) -> list[int]:
    step = size if size == length else max(int(size * (1 - overlap)), 1)
    count = ceil(max(length - size, 0) / step) + 1
    return [min(i * step, length - size) for i in range(count)]


def _evenly(length: int, size: int, overlap: float) -> list[int]:
    last = length - size
    count = ceil(last / (size * (1 - overlap))) + 1
    return [round(last * i / (count - 1)) if count > 1 else 0 for i in range(count)]
