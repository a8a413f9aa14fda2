"""Overlap and distance against brute force, MONAI, and conventions of the challenge."""

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
    """Voxels with a neighbor across a face that is outside, found one by one."""
    found = []
    for place in np.argwhere(mask):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                beside = place.copy()
                beside[axis] += step
                outside = not (0 <= beside[axis] < mask.shape[axis])
                if outside or not mask[tuple(beside)]:
                    found.append(tuple(place))
    points: NDArray[np.float64] = np.array(sorted(set(found))) * np.array(SPACING)
    return points


@pytest.mark.filterwarnings("ignore:monai:FutureWarning")
@pytest.mark.parametrize("seed", range(6))
def test_hausdorff_is_the_brute_force_one_and_monais(seed: int) -> None:
    a, b = blob(seed), blob(seed + 100, 0.05 + 0.05 * (seed % 3))
    far = cdist(surface_points(a), surface_points(b))
    expected = max(np.percentile(far.min(axis=1), 95), np.percentile(far.min(axis=0), 95))
    assert hausdorff95(a, b, SPACING) == pytest.approx(expected)
    theirs = compute_hausdorff_distance(
        torch.from_numpy(a)[None, None],
        torch.from_numpy(b)[None, None],
        include_background=True,
        percentile=95,
        spacing=list(SPACING),
    )
    assert hausdorff95(a, b, SPACING) == pytest.approx(float(theirs), abs=1e-4)


def test_a_shift_is_as_far_as_it_is_in_mm() -> None:
    a, b = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    a[3:6, 4:8, 2:4] = True
    b[3:6, 4:8, 4:6] = True
    assert hausdorff95(a, b, SPACING) == pytest.approx(5.0)
    assert hausdorff95(a, a, SPACING) == 0


def test_empty_masks_count_as_in_the_challenge() -> None:
    empty, full = np.zeros((240, 240, 155), bool), np.zeros((240, 240, 155), bool)
    full[100:110, 100:110, 70:80] = True
    assert hausdorff95(empty, empty, (1, 1, 1)) == 0
    assert hausdorff95(full, empty, (1, 1, 1)) == pytest.approx(373.13, abs=0.01)
    assert hausdorff95(empty, full, (1, 1, 1)) == pytest.approx(373.13, abs=0.01)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), axis=st.integers(0, 2), pad=st.integers(0, 3))
def test_mirrors_swaps_and_air_change_nothing(seed: int, axis: int, pad: int) -> None:
    a, b = blob(seed), blob(seed + 1)
    value = hausdorff95(a, b, SPACING)
    assert hausdorff95(b, a, SPACING) == pytest.approx(value)
    assert hausdorff95(np.flip(a, axis), np.flip(b, axis), SPACING) == pytest.approx(value)
    assert hausdorff95(a, b, [2 * edge for edge in SPACING]) == pytest.approx(2 * value)
    wider = hausdorff95(np.pad(a, pad), np.pad(b, pad), SPACING)
    assert wider == pytest.approx(value, abs=1e-9)
    assert dice(a, b) == dice(np.flip(a, axis), np.flip(b, axis))
