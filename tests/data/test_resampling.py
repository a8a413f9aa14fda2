"""Resampling between voxel sizes, against SciPy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import zoom

from neuroxai.data.resampling import Resampling

EDGES = st.tuples(*[st.integers(2, 9)] * 3)


@settings(deadline=None)
@given(EDGES, EDGES, st.integers(0, 99))
def test_resampling_back_equals_scipys_linear_zoom(
    shape: tuple[int, int, int], grid: tuple[int, int, int], seed: int
) -> None:
    values = np.random.default_rng(seed).normal(size=(2, *grid)).astype(np.float32)
    made = Resampling(shape, (1.0, 1.0, 1.0), grid, (1.0, 1.0, 1.0)).to_shape(values)
    assert made.dtype == np.float32
    factors = [new / old for new, old in zip(shape, grid, strict=True)]
    for one, each in zip(made, values, strict=True):
        expected = zoom(each.astype(np.float64), factors, order=1, mode="nearest", grid_mode=True)
        np.testing.assert_allclose(one, expected, atol=1e-6)


def test_thick_slices_are_resampled_separately() -> None:
    values = np.random.default_rng(0).normal(size=(1, 5, 4, 3))
    made = Resampling((10, 8, 6), (1.0, 1.0, 1.0), (5, 4, 3), (1.0, 1.0, 4.0)).to_shape(values)
    for z in range(6):
        expected = zoom(values[0, ..., z // 2], 2, order=1, mode="nearest", grid_mode=True)
        np.testing.assert_allclose(made[0, ..., z], expected, atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_ramp_is_preserved(axis: int) -> None:
    """The outer edges coincide, so the position of a voxel's center in mm is preserved."""
    shape, grid = (12, 15, 9), (6, 5, 3)
    places = [(np.arange(n) + 0.5) / n for n in shape]
    ramp = np.broadcast_to(np.meshgrid(*places, indexing="ij")[axis], shape)
    way = Resampling(shape, (1.0, 1.0, 1.0), grid, (2.0, 3.0, 3.0))
    small = way.to_grid(ramp)
    coarse = [(np.arange(n) + 0.5) / n for n in grid]
    expected = np.broadcast_to(np.meshgrid(*coarse, indexing="ij")[axis], grid)
    inner = (slice(1, -1),) * 3
    np.testing.assert_allclose(small[inner], expected[inner], atol=0.02)
    # Beyond the outermost centers, values are not extrapolated.
    near = (slice(3, -3),) * 3
    np.testing.assert_allclose(way.to_shape(expected)[near], ramp[near], atol=1e-12)


def test_labels_use_the_nearest_voxel() -> None:
    labels = np.array([[[0, 1, 2, 4]]], np.uint8)
    way = Resampling((1, 1, 4), (1.0, 1.0, 1.0), (1, 1, 2), (1.0, 1.0, 2.0))
    assert set(np.unique(way.to_grid(labels))) <= {0, 1, 2, 4}
    np.testing.assert_array_equal(way.to_shape(np.array([[[3, 1]]], np.uint8)), [[[3, 3, 1, 1]]])


@settings(deadline=None)
@given(EDGES, EDGES, st.integers(0, 99))
def test_distributed_amounts_equal_integrals_over_the_voxels(
    shape: tuple[int, int, int], grid: tuple[int, int, int], seed: int
) -> None:
    """On a grid that both voxel sizes divide, an amount is a constant density."""
    values = np.random.default_rng(seed).normal(size=(2, *grid))
    made = Resampling(shape, (1.0, 1.0, 1.0), grid, (1.0, 1.0, 1.0)).distribute(values)
    expected = values
    for axis, (new, old) in enumerate(zip(shape, grid, strict=True), start=1):
        fine = np.repeat(expected / new, new, axis=axis)
        blocks = (*fine.shape[:axis], new, old, *fine.shape[axis + 1 :])
        expected = fine.reshape(blocks).sum(axis=axis + 1)
    np.testing.assert_allclose(made, expected, atol=1e-12)
    np.testing.assert_allclose(made.sum(axis=(1, 2, 3)), values.sum(axis=(1, 2, 3)), atol=1e-11)
