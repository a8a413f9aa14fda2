"""Side and center of a map, for every orientation of the file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuroxai.data.placement import Placement
from neuroxai.patient.location import Location, locate

SHAPE = (9, 7, 5)


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, -1, 1), (-1, 1, -1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_the_center_is_in_mm_of_the_patient(flips: tuple[int, ...], order: tuple[int, ...]) -> None:
    affine = np.zeros((4, 4))
    for axis, (world, flip) in enumerate(zip(order, flips, strict=True)):
        affine[world, axis] = flip * (axis + 1.5)
    affine[:, 3] = 40, -11, 7, 1
    rng = np.random.default_rng(1)
    brain = rng.random(SHAPE) < 0.6
    volume = rng.standard_normal(SHAPE)
    points = np.argwhere(brain) @ affine[:3, :3].T + affine[:3, 3]
    offset = points - points.mean(axis=0)
    weights = np.abs(volume[brain])
    right = weights[offset[:, 0] > 0].sum() / weights.sum()

    placement = Placement.fit(SHAPE, affine)
    values = torch.from_numpy(np.ascontiguousarray(placement.to_network(volume)))
    mask = placement.to_network(brain.astype(np.uint8)) > 0
    found = locate(values[None], torch.from_numpy(np.ascontiguousarray(mask)), placement)
    assert found is not None
    assert found.center_mm == pytest.approx(weights @ offset / weights.sum(), abs=1e-9)
    assert found.right == pytest.approx(right)


def test_a_slice_has_a_side_and_no_height() -> None:
    placement = Placement.fit(SHAPE, np.diag([-2.0, 2, 3, 1]), size=SHAPE[:2], slice_index=3)
    values = torch.zeros(2, *SHAPE[:2])
    values[1, 8, 3] = -4.0  # the network's first axis runs from left to right
    found = locate(values, torch.ones(SHAPE[:2], dtype=torch.bool), placement)
    assert found is not None
    assert found.side == "right"
    assert found.center_mm == pytest.approx((8.0, 0.0, 0.0))
    assert str(found) == "8 mm right of the brain's center"


def test_nothing_in_the_brain_has_no_location() -> None:
    placement = Placement.fit(SHAPE, np.eye(4))
    brain = torch.zeros(SHAPE, dtype=torch.bool)
    brain[2:4] = True
    values = (~brain)[None].double()
    assert locate(values, brain, placement) is None
    assert locate(values * torch.nan, brain, placement) is None


def test_the_side_needs_twice_the_other() -> None:
    sides = [Location(right, (0.4, 0.0, 0.0)).side for right in (0.9, 0.6, 0.4, 0.1)]
    assert sides == ["right", "both sides", "both sides", "left"]
    assert str(Location(0.5, (0.4, 0.0, 0.0))) == "at the brain's center"
