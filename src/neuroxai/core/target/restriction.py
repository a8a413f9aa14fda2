"""Restrictions of a segmenter's target: the mean over a mask instead of the whole output.

They answer why *this lesion* was called tumor, which the mean over the whole output cannot.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.core.covered import Covered
from neuroxai.core.errors import TargetError


class Restriction(ABC):
    """A mask on the output's grid, fixed at the explained point.

    Attributes
    ----------
    name
        Name for the provenance.
    of_prediction
        Whether the mask depends on the network's prediction.
    """

    name: str
    of_prediction: ClassVar[bool] = True

    def on_output(self, covered: Covered) -> Restriction:
        """Return the restriction for an output that covers a part of the image."""
        return self

    @abstractmethod
    def mask(self, predicted: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the mask ``(B, *S)``, bool, or floating-point weights in [0, 1].

        Parameters
        ----------
        predicted
            ``(B, *S)`` bool, where the network predicts the target; all False if the restriction
            does not depend on it.
        shape
            ``S``, the output's grid.
        """


@dataclass(frozen=True)
class Image(Restriction):
    """The whole output: the paper's global average pooling, which is no restriction."""

    of_prediction: ClassVar[bool] = False

    name: str = "image"

    def mask(self, predicted: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return True everywhere."""
        return torch.ones_like(predicted)


@dataclass(frozen=True)
class Prediction(Restriction):
    """The region in which the network predicts the target.

    Parameters
    ----------
    by_default
        Whether the restriction was not requested: where nothing is predicted, the target is then
        the mean over the whole output, with a note, and a classifier's target is not restricted.
    """

    name: str = "prediction"
    by_default: bool = False

    def mask(self, predicted: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the predicted region."""
        return predicted


@dataclass(frozen=True, eq=False)
class Mask(Restriction):
    r"""A given mask, for example the ground truth.

    A soft mask weights the voxels: the target is

    .. math:: S = \sum_v m_v z_v \, \Big/ \, \sum_v m_v

    Parameters
    ----------
    values
        ``S`` or ``(B, *S)`` on the network's output grid, or on the grid of its input if the output
        covers a part of it: bool, integers 0 and 1, or floating-point
        weights in [0, 1].
    name
        Name of the mask, for the provenance.
    sha256
        Hash of the file it was read from, for the provenance; None if there is none.

    Raises
    ------
    TargetError
        If a value is NaN, is not in [0, 1], or is an integer other than 0 and 1, as in label files.

    Examples
    --------
    >>> Mask(torch.tensor([0.0, 0.5])).mask(torch.zeros(1, 2, dtype=torch.bool), (2,))
    tensor([[0.0000, 0.5000]])
    """

    of_prediction: ClassVar[bool] = False

    values: Tensor
    name: str = "mask"
    sha256: str | None = None

    def __post_init__(self) -> None:
        check_mask(torch.as_tensor(self.values), self.name)

    def on_output(self, covered: Covered) -> Restriction:
        """Return the part of a mask on the image that the output covers."""
        values = torch.as_tensor(self.values)
        if tuple(values.shape[-len(covered.size) :]) != covered.size:
            return self
        return Mask(covered.crop(values), self.name)

    def mask(self, predicted: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the mask for every sample of the batch: weights if it is soft, otherwise bool."""
        values = torch.as_tensor(self.values, device=predicted.device)
        if not is_soft(values):
            values = values != 0
        if tuple(values.shape) == shape:
            values = values.expand(predicted.shape[0], *shape)
        if values.shape != predicted.shape:
            raise TargetError(
                f"the mask {self.name!r} has shape {tuple(values.shape)}, expected {shape} or "
                f"{tuple(predicted.shape)}: give it on the network's output grid"
            )
        return values


def is_soft(values: Tensor) -> bool:
    """Return whether a mask has weights other than 0 and 1."""
    return values.is_floating_point() and bool(((values != 0) & (values != 1)).any())


def check_mask(values: Tensor, name: str) -> None:
    """Raise if values are not a mask.

    Raises
    ------
    TargetError
        See :class:`Mask`.
    """
    if values.is_complex():
        raise TargetError(f"the mask {name!r} has complex values, expected weights in [0, 1]")
    if not bool(torch.isfinite(values).all()):
        raise TargetError(
            f"the mask {name!r} has NaN or infinite values, expected weights in [0, 1]: replace "
            "them, for example by 0 outside the region"
        )
    wrong = values[(values < 0) | (values > 1)]
    if not wrong.numel():
        return
    found = values.unique()[:6].tolist()
    if bool((values == values.round()).all()):
        labels = ", ".join(f"{value:g}" for value in found)
        raise TargetError(
            f"the mask {name!r} has the values {labels}, expected 0 and 1 or weights in [0, 1]: "
            f"for one label use mask == {max(found):g}, for all labels mask > 0"
        )
    raise TargetError(
        f"the mask {name!r} has values from {float(values.min()):g} to {float(values.max()):g}, "
        "expected weights in [0, 1]: scale or threshold it"
    )


@dataclass(frozen=True)
class Box(Restriction):
    """A box of voxels on the output's grid, from ``start`` to ``stop`` (exclusive)."""

    of_prediction: ClassVar[bool] = False

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def name(self) -> str:  # type: ignore[override]
        """The box's corners."""
        return f"box {list(self.start)} to {list(self.stop)}"

    def mask(self, predicted: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the box for every sample."""
        if len(self.start) != len(shape) or len(self.stop) != len(shape):
            raise TargetError(
                f"{self.name} has {len(self.start)} axes, but the output's grid {shape} has "
                f"{len(shape)}: give one number per axis"
            )
        if any(not 0 <= a < b <= n for a, b, n in zip(self.start, self.stop, shape, strict=True)):
            raise TargetError(f"{self.name} exceeds the output's grid {shape}")
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
