"""Planes: cuts against loops over voxels, letters against the directions of the axes."""

from __future__ import annotations

import numpy as np
import pytest

from neuroxai.render.planes import AXIAL, CORONAL, PLANES, SAGITTAL, Plane, brain_box, center, crop

SHAPE = (4, 5, 3)


def sides(voxel: tuple[int, ...], plane: Plane, picture: np.ndarray) -> set[str]:
    """Return the letters at the edges nearest to the single bright pixel."""
    left, right, top, bottom = plane.letters
    row, column = (int(v) for v in np.argwhere(picture)[0])
    return {
        left if column < (picture.shape[1] - 1) / 2 else right,
        top if row < (picture.shape[0] - 1) / 2 else bottom,
    }


@pytest.mark.parametrize("plane", PLANES, ids=lambda plane: plane.name)
@pytest.mark.parametrize("corner", list(np.ndindex(2, 2, 2)), ids=str)
def test_a_corner_is_next_to_its_direction_letters(plane: Plane, corner: tuple[int, ...]) -> None:
    voxel = tuple(c * (n - 1) for c, n in zip(corner, (4, 6, 2), strict=True))
    volume = np.zeros((4, 6, 2))
    volume[voxel] = 1
    patient = {"LR"[corner[0]], "PA"[corner[1]], "IS"[corner[2]]}
    through = {("LR", "PA", "IS")[plane.through][corner[plane.through]]}
    assert sides(voxel, plane, plane.cut(volume, voxel[plane.through])) == patient - through


def test_letters_are_the_radiological_convention() -> None:
    assert AXIAL.letters == ("R", "L", "A", "P")
    assert CORONAL.letters == ("R", "L", "S", "I")
    assert SAGITTAL.letters == ("A", "P", "S", "I")


@pytest.mark.parametrize("plane", PLANES, ids=lambda plane: plane.name)
def test_cut_against_a_loop(plane: Plane) -> None:
    volume = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    for index in range(SHAPE[plane.through]):
        picture = plane.cut(volume, index)
        wide, high = SHAPE[plane.across], SHAPE[plane.up]
        assert picture.shape == (high, wide)
        for row in range(high):
            for column in range(wide):
                at = [0, 0, 0]
                at[plane.across] = wide - 1 - column
                at[plane.up] = high - 1 - row
                at[plane.through] = index
                assert picture[row, column] == volume[tuple(at)]


def test_brain_box_contains_all_brains_and_a_margin_in_mm() -> None:
    a, b = np.zeros((20, 30, 10)), np.full((20, 30, 10), -1.0)
    a[8, 12:15, 4] = 5
    b[10, 20, 5] = 0  # air is -1 here
    box = brain_box([a, b], (1.0, 2.0, 3.0), margin=4.0)
    assert box == (slice(4, 15), slice(10, 23), slice(2, 8))
    assert crop(box, CORONAL) == (box[0], slice(None), box[2])


def test_brain_box_is_on_the_grid_also_for_an_empty_scan() -> None:
    a = np.zeros((5, 6, 7))
    assert brain_box([a], (1.0, 1.0, 1.0)) == (slice(0, 5), slice(0, 6), slice(0, 7))
    a[1:, 1:, 1:] = 1
    assert brain_box([a], (1.0, 1.0, 1.0), margin=50) == (slice(0, 5), slice(0, 6), slice(0, 7))


def test_center_is_that_of_the_largest_component_even_if_hollow() -> None:
    mask = np.zeros((15, 12, 9), dtype=bool)
    mask[2:9, 3:8, 2:7] = True
    mask[4:7, 5:6, 4:5] = False  # hollow, like an enhancing rim
    mask[12:14, 9:11, 7:8] = True  # a second, smaller focus
    assert center(mask) == (5, 5, 4)
    assert not mask[5, 5, 4]
