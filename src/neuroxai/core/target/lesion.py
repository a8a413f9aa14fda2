"""Restriction of a target to one connected component of the predicted region."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
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
        labels, count = self.label(predicted.cpu().numpy())
        if not 1 <= self.rank <= count:
            raise TargetError(
                f"lesion {self.rank} does not exist: the predicted region has {count} connected "
                "component(s)"
            )
        sizes = np.bincount(labels.ravel())[1:]
        order = np.argsort(-sizes, kind="stable")
        return torch.from_numpy(labels == order[self.rank - 1] + 1).to(predicted.device)
