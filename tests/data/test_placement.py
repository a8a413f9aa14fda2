"""Placement: mapping to the network's grid and back, against nibabel and world coordinates."""

from __future__ import annotations

import itertools
import json
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import SpatialPad
from nibabel.affines import apply_affine
from nibabel.eulerangles import euler2mat
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError
from neuroxai.data.placement import Placement, crop_start

SHAPE = (4, 5, 7)


def affine_of(order: tuple[int, ...], signs: tuple[int, ...], tilt: float = 0.0) -> NDArray[Any]:
    affine = np.eye(4)
    affine[:3, :3] = 0
    affine[list(order), range(3)] = np.array(signs) * (1.0, 1.5, 2.0)
    affine[:3, :3] = euler2mat(tilt, -tilt, tilt / 2) @ affine[:3, :3]
    affine[:3, 3] = (-31.0, 12.5, 4.0)
    return affine


ORIENTATIONS = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


@st.composite
def placements(draw: st.DrawFn) -> Placement:
    order, signs = draw(st.sampled_from(ORIENTATIONS))
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    affine = affine_of(order, signs, draw(st.sampled_from([0.0, 0.3])))
    axes = draw(st.sampled_from([2, 3]))
    ras = Placement.fit(shape, affine).reoriented_shape
    index = draw(st.integers(0, ras[2] - 1)) if axes == 2 else None
    start = draw(st.tuples(*[st.integers(-8, 8)] * axes))
    size = draw(st.tuples(*[st.integers(1, 9)] * axes))
    return Placement.fit(shape, affine, start, size, index)


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_reorientation_equals_nibabel(
    order: tuple[int, ...], signs: tuple[int, ...], tilt: float
) -> None:
    affine = affine_of(order, signs, tilt)
    data = np.arange(140, dtype=np.int16).reshape(SHAPE)
    oracle = nib.as_closest_canonical(nib.Nifti1Image(data, affine))
    placement = Placement.fit(SHAPE, affine)
    np.testing.assert_array_equal(placement.reorient(data), np.asarray(oracle.dataobj))
    np.testing.assert_allclose(placement.reoriented_affine, oracle.affine, atol=1e-12)
    np.testing.assert_array_equal(placement.restore_orientation(placement.reorient(data)), data)
    np.testing.assert_array_equal(placement.to_network(data), np.asarray(oracle.dataobj))
    assert placement.reoriented_shape == oracle.shape
    assert placement.reorient(data).flags.c_contiguous


@settings(max_examples=100, deadline=None)
@given(placements())
def test_mapping_to_the_network_and_back(placement: Placement) -> None:
    """Against a slow loop over all voxels of the network, by world coordinates."""
    volume = np.arange(1, np.prod(placement.shape) + 1, dtype=np.float32)
    volume = volume.reshape(placement.shape)
    x = placement.to_network(volume, fill=-1)
    to_voxel = np.linalg.inv(placement.affine)
    expected = np.full(placement.size, -1, np.float32)
    inside = np.zeros(placement.shape, bool)
    for index in np.ndindex(placement.size):
        world = apply_affine(placement.network_affine, [*index, 0][:3])
        voxel = np.rint(apply_affine(to_voxel, world)).astype(int)
        if (voxel >= 0).all() and (voxel < placement.shape).all():
            expected[index] = volume[tuple(voxel)]
            inside[tuple(voxel)] = True
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(
        placement.to_patient(x, fill=-2), np.where(inside, volume, np.float32(-2))
    )
    stacked = placement.to_patient(np.stack([x, 2 * x]))
    assert stacked.dtype == np.float32
    np.testing.assert_array_equal(
        stacked, np.stack([placement.to_patient(x), placement.to_patient(2 * x)])
    )
    np.testing.assert_array_equal(
        placement.to_network(np.stack([volume, 3 * volume]))[1], placement.to_network(3 * volume)
    )


def test_spacing_follows_the_axes() -> None:
    placement = Placement.fit(SHAPE, affine_of((2, 0, 1), (1, -1, 1)))
    assert placement.spacing == pytest.approx((1.5, 2.0, 1.0))
    flat = Placement.fit(SHAPE, affine_of((2, 0, 1), (1, -1, 1)), slice_index=0)
    assert flat.spacing == pytest.approx((1.5, 2.0))


def test_description_is_json() -> None:
    placement = Placement.fit(SHAPE, np.eye(4), (0, -1), (4, 8), 3)
    text = json.loads(json.dumps(placement.describe()))
    assert text["axial_slice"] == 3
    assert text["network_start"] == [0, -1]
    assert text["patient_shape"] == [4, 5, 7]


def test_arrays_on_other_grids() -> None:
    placement = Placement.fit(SHAPE, np.eye(4), (0, 0, 0), (2, 2, 2))
    for call in (placement.to_network, placement.reorient, placement.restore_orientation):
        with pytest.raises(CaseError, match=r"expected the grid \(4, 5, 7\)"):
            call(np.zeros((7, 5, 4)))
    with pytest.raises(CaseError, match="network's grid"):
        placement.to_patient(np.zeros(SHAPE))
    with pytest.raises(CaseError, match="0 to 6"):
        Placement.fit(SHAPE, np.eye(4), slice_index=7)
    for bad in (np.zeros((4, 4)), np.diag([1, 1, 0, 1]), np.full((4, 4), np.nan), np.eye(3)):
        with pytest.raises(CaseError, match="singular"):
            Placement.fit(SHAPE, bad)


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_crop_start_contains_the_interval(length: int, size: int, data: st.DataObject) -> None:
    low = data.draw(st.integers(0, length - 1))
    high = data.draw(st.integers(low + 1, length))
    start = crop_start(length, size, low, high)
    center = (length - size) // 2
    if size >= length:
        padded = SpatialPad((size,))(np.ones((1, length), np.float32))
        assert start == -int(np.asarray(padded)[0].argmax())
        return
    assert 0 <= start <= length - size
    fitting = [s for s in range(length - size + 1) if s <= low and high <= s + size]
    if fitting:
        assert start == min(fitting, key=lambda s: abs(s - center))
    else:
        assert low <= start
        assert start + size <= high
