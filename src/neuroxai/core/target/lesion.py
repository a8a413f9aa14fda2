"""Target restricted to one connected component of the predicted region."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuroxai.core.errors import TargetError
from neuroxai.core.target.restriction import Restriction

Label = Callable[[np.ndarray], tuple[np.ndarray, int]]
"""Numbers the connected components of a mask: labels and their count."""


@dataclass(frozen=True)
class Lesion(Restriction):
    """The predicted region's connected component of a given rank by volume, 1 being the largest.

    Parameters
    ----------
    label
        Numbers connected components; :func:`neuroxai.patient.lesions.label_components`.
    rank
        The component's rank by volume.

    Examples
    --------
    >>> from scipy import ndimage
    >>> predicted = torch.tensor([[[1, 1, 0, 1], [0, 0, 0, 0]]], dtype=torch.bool)
    >>> Lesion(ndimage.label, 2).mask(predicted, (2, 4)).nonzero().tolist()
    [[0, 0, 3]]
    """

    label: Label
    rank: int = 1

    @property
    def name(self) -> str:  # type: ignore[override]
        """The lesion's number."""
        return f"lesion {self.rank}"

    def mask(self, predicted: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the component for every sample."""
        return torch.stack([self._component(sample) for sample in predicted])

    def _component(self, predicted: Tensor) -> Tensor:
        numbered, count = self.label(predicted.cpu().numpy())
        if not 1 <= self.rank <= count:
            raise TargetError(
                f"lesion {self.rank} does not exist: the network predicts {count} connected "
                "component(s) of the target"
            )
        sizes = np.bincount(numbered.ravel())[1:]
        order = np.argsort(-sizes, kind="stable")
        return torch.from_numpy(numbered == order[self.rank - 1] + 1).to(predicted.device)
