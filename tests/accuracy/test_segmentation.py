"""Dice and HD95 against brute force, MONAI, and the conventions of the BraTS challenge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_hausdorff_distance
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from neuroxai.accuracy.segmentation import Mask, dice, hausdorff95

SHAPE, SPACING = (11, 14, 9), (1.0, 0.8, 2.5)


def blob(seed: int, share: float = 0.15) -> Mask:
    smooth = gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), 1.5)
    mask: Mask = smooth > np.quantile(smooth, 1 - share)
    return mask


def surface_points(mask: Mask) -> NDArray[np.float64]:
    """Voxels with a face neighbor outside the mask, one by one."""
    found = []
    for place in np.argwhere(mask):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                neighbor = place.copy()
                neighbor[axis] += step
                outside = not (0 <= neighbor[axis] < mask.shape[axis])
                if outside or not mask[tuple(neighbor)]:
                    found.append(tuple(place))
    points: NDArray[np.float64] = np.array(sorted(set(found))) * np.array(SPACING)
    return points


@pytest.mark.filterwarnings("ignore:monai:FutureWarning")
@pytest.mark.parametrize("seed", range(6))
def test_hausdorff_equals_brute_force_and_monai(seed: int) -> None:
    a, b = blob(seed), blob(seed + 100, 0.05 + 0.05 * (seed % 3))
    distances = cdist(surface_points(a), surface_points(b))
    expected = max(
        np.percentile(distances.min(axis=1), 95), np.percentile(distances.min(axis=0), 95)
    )
    assert hausdorff95(a, b, SPACING) == pytest.approx(expected)
    theirs = compute_hausdorff_distance(
        torch.from_numpy(a)[None, None],
        torch.from_numpy(b)[None, None],
        include_background=True,
        percentile=95,
        spacing=list(SPACING),
    )
    assert hausdorff95(a, b, SPACING) == pytest.approx(float(theirs), abs=1e-4)


def test_the_distance_of_a_shifted_mask_is_the_shift_in_mm() -> None:
    a, b = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    a[3:6, 4:8, 2:4] = True
    b[3:6, 4:8, 4:6] = True
    assert hausdorff95(a, b, SPACING) == pytest.approx(5.0)
    assert hausdorff95(a, a, SPACING) == 0


def test_empty_masks_follow_the_challenge() -> None:
    empty, full = np.zeros((240, 240, 155), bool), np.zeros((240, 240, 155), bool)
    full[100:110, 100:110, 70:80] = True
    assert hausdorff95(empty, empty, (1, 1, 1)) == 0
    assert hausdorff95(full, empty, (1, 1, 1)) == pytest.approx(373.13, abs=0.01)
    assert hausdorff95(empty, full, (1, 1, 1)) == pytest.approx(373.13, abs=0.01)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), axis=st.integers(0, 2), pad=st.integers(0, 3))
def test_invariance_to_flips_swaps_and_padding(seed: int, axis: int, pad: int) -> None:
    a, b = blob(seed), blob(seed + 1)
    value = hausdorff95(a, b, SPACING)
    assert hausdorff95(b, a, SPACING) == pytest.approx(value)
    assert hausdorff95(np.flip(a, axis), np.flip(b, axis), SPACING) == pytest.approx(value)
    assert hausdorff95(a, b, [2 * edge for edge in SPACING]) == pytest.approx(2 * value)
    wider = hausdorff95(np.pad(a, pad), np.pad(b, pad), SPACING)
    assert wider == pytest.approx(value, abs=1e-9)
    assert dice(a, b) == dice(np.flip(a, axis), np.flip(b, axis))
