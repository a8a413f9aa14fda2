"""Preprocessing by steps, one after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neuroxai.data.intensity import air_intensity
from neuroxai.data.moves import Stretch
from neuroxai.data.placement import Placement
from neuroxai.data.step_intensity import change_intensities
from neuroxai.data.step_space import plan_move
from neuroxai.data.steps import (
    ClipPercentiles,
    Normalize,
    PadToMultiple,
    Scale,
    ScalePercentiles,
    ScaleRange,
)

if TYPE_CHECKING:
    from neuroxai.data.preprocessing import Preprocessing

_INTENSITY = (Normalize, Scale, ScaleRange, ScalePercentiles, ClipPercentiles)


@dataclass(frozen=True, eq=False)
class Stepped:
    """Result of all steps.

    Attributes
    ----------
    image
        ``(C, *S)`` float32.
    placement
        Mapping between the network's grid and the patient's.
    air
        Per channel the value of air.
    resampled
        Voxel edges in mm before and after each resampling.
    """

    image: NDArray[np.float32]
    placement: Placement
    air: tuple[float, ...]
    resampled: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]


def run_steps(
    recipe: Preprocessing, volumes: Mapping[str, NDArray[np.float32]], placement: Placement
) -> Stepped:
    """Apply the steps of a recipe.

    Parameters
    ----------
    recipe
        A recipe with ``steps``.
    volumes
        The reoriented volumes ``(X, Y, Z)`` by modality.
    placement
        Their place on the patient's grid.

    Raises
    ------
    CaseError
        If a step does not suit the image.

    Examples
    --------
    >>> from neuroxai.data.preprocessing import Preprocessing
    >>> table = {"modalities": ["T1"], "divisor": 4, "steps": [{"step": "scale", "high": 2.0}]}
    >>> volume = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    >>> grid = Placement.fit(volume.shape, np.eye(4))
    >>> done = run_steps(Preprocessing.from_dict(table), {"T1": volume}, grid)
    >>> done.image.shape, float(done.image.max())
    ((1, 4, 4, 8), 2.0)
    """
    image = np.stack([volumes[name] for name in recipe.modalities]).astype(np.float32)
    air = tuple(air_intensity(volume) for volume in image)
    resampled = []
    last = PadToMultiple(step="pad_to_multiple", of=(recipe.divisor,) * 3)
    for step in (*(recipe.steps or ()), last):
        if isinstance(step, _INTENSITY):
            image, air = change_intensities(step, image, air)
            continue
        move = plan_move(step, image, placement.network_affine)
        if move is None:
            continue
        before = _edges(placement)
        image = move.forward(image)
        placement = dataclasses.replace(placement, further=(*placement.further, move))
        if isinstance(move, Stretch):
            resampled.append((before, _edges(placement)))
    return Stepped(image, placement, air, tuple(resampled))


def _edges(placement: Placement) -> tuple[float, ...]:
    return tuple(float(mm) for mm in np.linalg.norm(placement.network_affine[:3, :3], axis=0))
