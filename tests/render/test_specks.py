"""Outlines leave out specks, which would hide the map, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.morphology import remove_small_objects

from neuroxai.render.specks import SPECK_MM2, without_specks


@pytest.mark.parametrize("pixel_mm2", [1.0, 2.5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_small_parts_and_holes_are_those_of_scikit_image(seed: int, pixel_mm2: float) -> None:
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.random((9, 13)) > 0.5, np.ones((4, 3), bool))
    mask ^= rng.random(mask.shape) > 0.97
    smaller = int(np.ceil(SPECK_MM2 / pixel_mm2)) - 1  # scikit-image names the largest one removed
    expected = remove_small_objects(mask, max_size=smaller, connectivity=2)
    holes = np.pad(~expected, 1, constant_values=True)
    large = remove_small_objects(holes, max_size=smaller, connectivity=1)
    assert (without_specks(mask, pixel_mm2) == ~large[1:-1, 1:-1]).all()
    assert (expected != mask).any()


def test_the_largest_part_stays_however_small() -> None:
    mask = np.zeros((8, 10), bool)
    mask[2, 3] = mask[5, 6:8] = True
    found = without_specks(mask, 1.0)
    assert found[5, 6:8].all()
    assert found.sum() == 2
    assert not without_specks(np.zeros_like(mask), 1.0).any()
    assert without_specks(np.ones_like(mask), 1.0).all()


def test_an_open_bay_is_no_hole() -> None:
    mask = np.ones((20, 20), bool)
    mask[9, :6] = False
    assert (without_specks(mask, 1.0) == mask).all()
