"""Restriction of a target to one connected component of the predicted region."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroxai.core.errors import TargetError
from neuroxai.core.target.restriction import Restriction

Labeling = Callable[[np.ndarray], tuple[np.ndarray, int]]
"""Labels the connected components of a mask: returns labels from 1 and their number."""


@dataclass(frozen=True)
class Lesion(Restriction):
    """A connected component of the predicted region, by rank of volume.

    Parameters
    ----------
    label
        Labels connected components; :func:`neuroxai.patient.lesions.label_components`.
    rank
        1 for the largest component.

    Examples
    --------
    >>> from scipy import ndimage
    >>> predicted = torch.tensor([[[1, 1, 0, 1], [0, 0, 0, 0]]], dtype=torch.bool)
    >>> Lesion(ndimage.label, 2).mask(predicted, (2, 4)).nonzero().tolist()
    [[0, 0, 3]]
    """

    label: Labeling
    rank: int = 1

    @property
    def name(self) -> str:  # type: ignore[override]
        """``lesion`` and the rank."""
        return f"lesion {self.rank}"

    def mask(self, predicted: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the component for every sample."""
        return torch.stack([self._component(sample) for sample in predicted])

    def _component(self, predicted: Tensor) -> Tensor:
        found = ranked_components(self.label, predicted)
        if not 1 <= self.rank <= len(found.sizes):
            raise TargetError(
                f"lesion {self.rank} does not exist: the predicted region has {len(found.sizes)} "
                "connected component(s)"
            )
        return torch.from_numpy(found.mask(self.rank)).to(predicted.device)


@dataclass(frozen=True, eq=False)
class RankedComponents:
    """Connected components of a mask, the largest first; of equal ones the first in memory.

    Attributes
    ----------
    labels
        ``(*S)`` int, 0 outside the mask.
    order
        The label of each rank.
    sizes
        Voxels of each rank.
    """

    labels: NDArray[np.integer]
    order: tuple[int, ...]
    sizes: tuple[int, ...]

    def mask(self, rank: int) -> NDArray[np.bool_]:
        """Return the component of a rank, which counts from 1."""
        found: NDArray[np.bool_] = self.labels == self.order[rank - 1]
        return found


def ranked_components(label: Labeling, predicted: Tensor) -> RankedComponents:
    """Return the connected components of a mask ``(*S)``, by volume.

    Examples
    --------
    >>> from scipy import ndimage
    >>> found = ranked_components(ndimage.label, torch.tensor([True, False, True, True]))
    >>> found.sizes, found.mask(1).tolist()
    ((2, 1), [False, False, True, True])
    """
    labels, _ = label(predicted.cpu().numpy())
    sizes = np.bincount(labels.ravel())[1:]
    order = np.argsort(-sizes, kind="stable")
    return RankedComponents(labels, tuple((order + 1).tolist()), tuple(sizes[order].tolist()))
