"""One connected component of the predicted target: "why did you call *this lesion* tumor?"."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuroxai.core.errors import TargetError
from neuroxai.core.restriction import Restriction


@dataclass(frozen=True)
class Lesion(Restriction):
    """The predicted region's component of a given rank by size, 1 being the largest.

    Voxels that share a face, an edge or a corner belong together.

    Examples
    --------
    >>> predicted = torch.tensor([[[1, 1, 0, 1], [0, 0, 0, 0]]], dtype=torch.bool)
    >>> Lesion(2).mask(predicted, (2, 4)).nonzero().tolist()
    [[0, 0, 3]]
    """

    rank: int = 1

    @property
    def name(self) -> str:  # type: ignore[override]
        """The lesion's number."""
        return f"lesion {self.rank}"

    def mask(self, predicted: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the component for every sample."""
        return torch.stack([self._component(sample) for sample in predicted])

    def _component(self, predicted: Tensor) -> Tensor:
        from scipy import ndimage

        structure = np.ones((3,) * predicted.dim(), dtype=bool)
        numbered, count = ndimage.label(predicted.cpu().numpy(), structure)
        if not 1 <= self.rank <= count:
            raise TargetError(
                f"lesion {self.rank} does not exist: the network predicts {count} connected "
                "component(s) of the target"
            )
        sizes = np.bincount(numbered.ravel())[1:]
        order = np.argsort(-sizes, kind="stable")
        return torch.from_numpy(numbered == order[self.rank - 1] + 1).to(predicted.device)
