"""Location of a map in the patient's head: side, and center relative to the brain's center."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from neuroxai.data.placement import Placement

_DIRECTIONS = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))

_ONE_SIDED = 2 / 3
"""Share of one side from which a map is called one-sided: twice the share of the other side."""


@dataclass(frozen=True)
class Location:
    """Where in the brain a map is.

    Attributes
    ----------
    right
        Share of the map's absolute values in the brain that is right of the brain's center.
    center_mm
        The center of the map's absolute values in the brain, in mm to the right, anterior and
        superior of the brain's center.
    """

    right: float
    center_mm: tuple[float, float, float]

    @property
    def side(self) -> str:
        """``right``, ``left``, or ``both sides`` if neither has two thirds of the map."""
        if self.right >= _ONE_SIDED:
            return "right"
        return "left" if 1 - self.right >= _ONE_SIDED else "both sides"

    def describe(self) -> dict[str, Any]:
        """Return the location, ready for JSON."""
        return {"side": self.side, **asdict(self), "center_mm": list(self.center_mm)}

    def __str__(self) -> str:
        named = [
            f"{abs(mm):.0f} mm {words[mm > 0]}"
            for mm, words in zip(self.center_mm, _DIRECTIONS, strict=True)
            if round(abs(mm))
        ]
        *others, last = named or ["at the brain's center"]
        return (f"{', '.join(others)} and {last}" if others else last) + (
            " of the brain's center" if named else ""
        )


def locate(values: Tensor, brain: Tensor, placement: Placement) -> Location | None:
    """Return where in the brain a map is.

    Parameters
    ----------
    values
        The map on the network's grid, ``(C, *S)``.
    brain
        ``(*S)`` bool.
    placement
        The mapping of the network's grid to mm.

    Returns
    -------
    Location or None
        None if the map has no finite value other than zero in the brain.

    Examples
    --------
    >>> import numpy as np
    >>> values = torch.zeros(1, 5, 4, 3)
    >>> values[0, 4, 2, 1] = -1.0
    >>> grid = Placement.fit((5, 4, 3), np.diag([2.0, 2.0, 1.0, 1.0]))
    >>> print(locate(values, torch.ones(5, 4, 3, dtype=torch.bool), grid))
    4 mm right and 1 mm anterior of the brain's center
    """
    weights = values.double().abs().sum(dim=0)[brain]
    total = float(weights.sum())
    if not 0 < total < float("inf"):
        return None
    index = brain.nonzero().double()
    index = torch.cat([index, index.new_zeros(len(index), 3 - index.shape[1])], dim=1)
    affine = torch.from_numpy(placement.network_affine)
    points = index @ affine[:3, :3].T + affine[:3, 3]
    offset = points - points.mean(dim=0)
    x, y, z = ((weights[:, None] * offset).sum(dim=0) / total).tolist()
    # Voxels at the center count half for each side; 1e-6 mm is rounding of the coordinates.
    across = torch.where(offset[:, 0].abs() < 1e-6, 0.5, (offset[:, 0] > 0).double())
    return Location(float((weights * across).sum()) / total, (x, y, z))
