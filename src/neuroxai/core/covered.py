"""The part of the image that a smaller output covers, as of convolutions without padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Covered:
    """A box of an image.

    Attributes
    ----------
    box
        The covered voxels along each axis.
    size
        The size of the image.

    Examples
    --------
    >>> covered = Covered((slice(1, 3),), (4,))
    >>> covered.embed(torch.tensor([5, 6])), covered.crop(torch.arange(4))
    (tensor([0, 5, 6, 0]), tensor([1, 2]))
    >>> covered.note()[:59]
    "the network's output covers voxels 1 to 2 of 4 of its input"
    """

    box: tuple[slice, ...]
    size: tuple[int, ...]

    def crop(self, values: Tensor) -> Tensor:
        """Return the covered part of ``(..., *S)``."""
        found: Tensor = values[self._index]
        return found

    def embed(self, values: Tensor) -> Tensor:
        """Return values of the covered part ``(..., *S)`` on the image; zero elsewhere."""
        whole = values.new_zeros((*values.shape[: values.dim() - len(self.size)], *self.size))
        whole[self._index] = values
        return whole

    def extend(self, values: Tensor) -> Tensor:
        """Return values of the covered part ``(..., *S)`` on the image, the outermost repeated."""
        for axis, (part, n) in enumerate(zip(self.box, self.size, strict=True)):
            nearest = torch.arange(n, device=values.device).clamp(part.start, part.stop - 1)
            values = values.index_select(values.dim() - len(self.size) + axis, nearest - part.start)
        return values

    @property
    def _index(self) -> Any:
        return (..., *self.box)

    @property
    def mask(self) -> Tensor:
        """The covered voxels, ``(*S)`` bool."""
        return self.embed(torch.ones([each.stop - each.start for each in self.box]).bool())

    def note(self) -> str:
        """Return a sentence for the reader of a prediction or a map."""
        voxels = ", ".join(
            f"{each.start} to {each.stop - 1} of {n}"
            for each, n in zip(self.box, self.size, strict=True)
        )
        share = float(self.mask.double().mean())
        return (
            f"the network's output covers voxels {voxels} of its input ({share:.0%} of the image): "
            "nothing is predicted outside, and targets are means over this part alone"
        )
