"""Where a segmenter's target is taken: the mean over a mask instead of the whole output.

It answers "why did you call *this lesion* tumor?", which the plain mean cannot.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.core.errors import TargetError


class Restriction(ABC):
    """A mask over the output's grid, fixed at the explained point.

    Attributes
    ----------
    of_prediction
        Whether it depends on what the network predicts, or on the grid alone.
    """

    name: str
    of_prediction: ClassVar[bool] = True

    @abstractmethod
    def mask(self, predicted: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return ``(B, *S)`` bool.

        Parameters
        ----------
        predicted
            ``(B, *S)`` bool, where the network predicts the target; nowhere, if the restriction
            is not :attr:`of_prediction`.
        shape
            ``S``, the output's grid.
        """


@dataclass(frozen=True)
class Prediction(Restriction):
    """Where the network itself predicts the target."""

    name: str = "prediction"

    def mask(self, predicted: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the predicted region."""
        return predicted


@dataclass(frozen=True, eq=False)
class Mask(Restriction):
    """A given mask: the truth, one connected component, anything.

    Parameters
    ----------
    values
        ``S`` or ``(B, *S)``, nonzero where the target counts, on the network's output grid.
    name
        What the mask is, for the provenance.
    """

    of_prediction: ClassVar[bool] = False

    values: Tensor
    name: str = "mask"

    def mask(self, predicted: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the mask for every sample of the batch."""
        values = torch.as_tensor(self.values, device=predicted.device) != 0
        if tuple(values.shape) == shape:
            values = values.expand(predicted.shape[0], *shape)
        if values.shape != predicted.shape:
            raise TargetError(
                f"the mask {self.name!r} has shape {tuple(values.shape)}, expected {shape} or "
                f"{tuple(predicted.shape)}: give it on the network's output grid"
            )
        return values


@dataclass(frozen=True)
class Box(Restriction):
    """A box of voxels from ``start`` (inclusive) to ``stop`` (exclusive) on the output's grid."""

    of_prediction: ClassVar[bool] = False

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def name(self) -> str:  # type: ignore[override]
        """The box in words."""
        return f"box {list(self.start)} to {list(self.stop)}"

    def mask(self, predicted: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the box for every sample."""
        if len(self.start) != len(shape) or len(self.stop) != len(shape):
            raise TargetError(
                f"{self.name} has {len(self.start)} axes, the output's grid {shape} has "
                f"{len(shape)}: give one number per axis"
            )
        if any(not 0 <= a < b <= n for a, b, n in zip(self.start, self.stop, shape, strict=True)):
            raise TargetError(f"{self.name} does not lie inside the output's grid {shape}")
        mask = torch.zeros_like(predicted)
        mask[(slice(None), *map(slice, self.start, self.stop))] = True
        return mask


def voxel(index: Sequence[int]) -> Box:
    """Return the restriction to one voxel.

    Examples
    --------
    >>> voxel((1, 2)).mask(torch.zeros(1, 3, 4, dtype=torch.bool), (3, 4)).sum().item()
    1
    """
    return Box(tuple(index), tuple(i + 1 for i in index))
