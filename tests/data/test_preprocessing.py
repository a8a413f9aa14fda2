"""Preprocessing: intensities against a slow formula, geometry against world coordinates."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine
from nibabel.eulerangles import euler2mat
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError, ModelError
from neuroxai.data.brats import read_case
from neuroxai.data.case import MODALITIES, Case
from neuroxai.data.case_files import find_cases
from neuroxai.data.layouts import LAYOUTS
from neuroxai.data.preparation import truth_on_network_grid
from neuroxai.data.preprocessing import Preprocessing
from neuroxai.data.slices import largest_slice

SHAPE = (33, 40, 21)
RECIPE = Preprocessing(modalities=MODALITIES, size=(32, 64, 32))


def phantom(affine: NDArray[Any] | None = None) -> Case:
    """Return an asymmetric head with a tumor on the right, in RAS+ by default."""
    rng = np.random.default_rng(3)
    x, y, z = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    brain = ((x - 15) / 12) ** 2 + ((y - 21) / 16) ** 2 + ((z - 11) / 8) ** 2 < 1
    tumor = ((x - 20) / 4) ** 2 + ((y - 26) / 3) ** 2 + ((z - 13) / 3) ** 2 < 1
    truth = tumor.astype(np.uint8) * 2
    truth[20, 26, 13] = 3
    volumes = {
        name: (brain * (rng.gamma(9, 60, SHAPE) + 300 * tumor)).astype(np.float32)
        for name in MODALITIES
    }
    return Case("head", volumes, np.eye(4) if affine is None else affine, LAYOUTS["plain"], truth)


def turned(case: Case, codes: str) -> Case:
    """Reorient a case with nibabel, the oracle."""
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(case.affine), nib.orientations.axcodes2ornt(codes)
    )

    def both(data: NDArray[Any]) -> Any:
        return nib.Nifti1Image(data, case.affine).as_reoriented(turn)

    assert case.truth is not None
    return replace(
        case,
        volumes={name: np.asarray(both(v).dataobj) for name, v in case.volumes.items()},
        affine=both(case.truth).affine,
        truth=np.asarray(both(case.truth).dataobj),
    )


def all_codes() -> list[str]:
    return [
        "".join(pair[sign] for pair, sign in zip(order, signs, strict=True))
        for order in itertools.permutations(("LR", "PA", "IS"))
        for signs in itertools.product((0, 1), repeat=3)
    ]


def slow_normalized(case: Case, names: tuple[str, ...], clip: float) -> dict[str, NDArray[Any]]:
    """Compute the normalization voxel by voxel, in Python floats."""
    columns = [case.volumes[name].ravel().tolist() for name in names]
    brain = [i for i, voxel in enumerate(zip(*columns, strict=True)) if any(voxel)]
    result = {}
    for name, column in zip(names, columns, strict=True):
        values = [column[i] for i in brain]
        mean = sum(values) / len(values)
        sigma = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
        z = [min(max((v - mean) / sigma, -clip), clip) for v in values]
        low, high = min(z), max(z)
        out = [0.0] * len(column)
        for i, value in zip(brain, z, strict=True):
            out[i] = (value - low) / (high - low)
        result[name] = np.array(out).reshape(case.shape)
    return result


# --- intensities ---


@pytest.mark.parametrize("clip", [5.0, 1.5])
def test_zscore_minmax_equals_the_formula(clip: float) -> None:
    case = phantom()
    prepared = RECIPE.replace(clip=clip).prepare(case)
    slow = slow_normalized(case, MODALITIES, clip)
    assert prepared.x.shape == (1, 4, 32, 64, 32)
    assert prepared.x.dtype == torch.float32
    for channel, name in enumerate(MODALITIES):
        expected = prepared.placement.to_network(slow[name])
        np.testing.assert_allclose(prepared.x[0, channel].numpy(), expected, atol=1e-6)
    assert prepared.background_value == (0.0,) * 4
    assert prepared.x.min() == 0
    assert prepared.x.max() == 1


def test_zscore_minmax_without_clipping_is_minmax() -> None:
    case = phantom()
    x = RECIPE.replace(clip=None).prepare(case).x[0, 1].numpy()
    values = case.volumes["T1ce"]
    brain = values != 0
    low, high = values[brain].min(), values[brain].max()
    expected = np.where(brain, (values - low) / (high - low), 0)
    np.testing.assert_allclose(x, RECIPE.prepare(case).placement.to_network(expected), atol=1e-6)
    assert np.abs(x - RECIPE.replace(clip=2.0).prepare(case).x[0, 1].numpy()).max() > 0.05


def test_zscore_keeps_the_background_at_zero() -> None:
    case = phantom()
    prepared = RECIPE.replace(intensity="zscore").prepare(case)
    for channel, name in enumerate(MODALITIES):
        values = case.volumes[name][case.volumes[name] != 0].astype(np.float64)
        assert prepared.background_value[channel] == pytest.approx(
            -values.mean() / values.std(), abs=1e-9
        )
        brain = prepared.placement.to_network(case.volumes[name]) != 0
        x = prepared.x[0, channel].numpy()
        assert (x[~brain] == 0).all()
        assert x[brain].mean() == pytest.approx(0, abs=0.02)
        assert x[brain].std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("clip", [5.0, 1.5])
def test_zscore_scaled_equals_the_formula(clip: float) -> None:
    case = phantom()
    recipe = RECIPE.replace(intensity="zscore_scaled", clip=clip)
    prepared = recipe.prepare(case)
    for channel, name in enumerate(MODALITIES):
        values = case.volumes[name].astype(np.float64)
        brain = values != 0
        mean, sigma = values[brain].mean(), values[brain].std()
        z = np.where(brain, np.clip((values - mean) / sigma, -clip, clip) / (2 * clip) + 0.5, 0)
        expected = prepared.placement.to_network(z)
        np.testing.assert_allclose(prepared.x[0, channel].numpy(), expected, atol=1e-6)
    assert prepared.background_value == (0.0,) * 4


def test_a_bright_vessel_changes_minmax_but_not_zscore_scaled() -> None:
    dull, bright = phantom(), phantom()
    values = dull.volumes["T1"]
    np.minimum(values, np.quantile(values[values != 0], 0.95), out=values)
    bright.volumes["T1"][...] = values
    bright.volumes["T1"][tuple(np.argwhere(values != 0)[0])] = 2 * values.max()
    moved = {}
    for intensity in ("zscore_minmax", "zscore_scaled"):
        recipe = RECIPE.replace(intensity=intensity)
        one, other = recipe.prepare(dull), recipe.prepare(bright)
        apart = (one.x - other.x)[0, 0].abs()
        moved[intensity] = float(apart[one.x[0, 0] != 0].median())
    assert moved["zscore_scaled"] < 0.002
    assert moved["zscore_minmax"] > 0.1


def robust_moments(values: Any) -> tuple[float, float]:
    """Mean and deviation of the middle 2–98 %, by sorting and counting."""
    ordered = sorted(float(value) for value in values)

    def percentile(share: float) -> float:
        place = share * (len(ordered) - 1)
        before = int(place)
        after = min(before + 1, len(ordered) - 1)
        return ordered[before] + (place - before) * (ordered[after] - ordered[before])

    low, high = percentile(0.02), percentile(0.98)
    middle = [value for value in ordered if low <= value <= high]
    mean = sum(middle) / len(middle)
    return mean, (sum((value - mean) ** 2 for value in middle) / len(middle)) ** 0.5


@pytest.mark.parametrize("clip", [5.0, 1.5])
def test_robust_zscores_equal_a_slow_implementation(clip: float) -> None:
    case = phantom()
    recipe = RECIPE.replace(intensity="zscore_robust", clip=clip)
    plain, scaled = (
        recipe.prepare(case), recipe.replace(intensity="zscore_robust_scaled").prepare(case)
    )  # fmt: skip
    for channel, name in enumerate(MODALITIES):
        values = case.volumes[name].astype(np.float64)
        brain = values != 0
        mean, sigma = robust_moments(values[brain])
        # The tails matter: the plain deviation is another number.
        assert sigma < 0.97 * values[brain].std()
        z = np.clip((values - mean) / sigma, -clip, clip)
        for prepared, expected in (
            (plain, np.where(brain, z, 0)),
            (scaled, np.where(brain, z / (2 * clip) + 0.5, 0)),
        ):
            np.testing.assert_allclose(
                prepared.x[0, channel].numpy(), prepared.placement.to_network(expected), atol=1e-5
            )
    assert scaled.background_value == (0.0,) * 4


def test_bright_vessels_change_a_zscore_but_not_a_robust_one() -> None:
    dull, bright = phantom(), phantom()
    values = bright.volumes["T1ce"]
    brightest = values >= np.quantile(values[values != 0], 0.99)
    values[brightest] *= 4
    moved = {}
    for intensity in ("zscore_scaled", "zscore_robust_scaled"):
        recipe = RECIPE.replace(intensity=intensity)
        one, other = recipe.prepare(dull), recipe.prepare(bright)
        apart = (one.x - other.x)[0, 1].abs()
        moved[intensity] = float(apart[one.x[0, 1] != 0].median())
    assert moved["zscore_robust_scaled"] < 1e-6
    assert moved["zscore_scaled"] > 0.01


def test_a_robust_zscore_refuses_a_brain_whose_middle_is_constant() -> None:
    case = phantom()
    values = case.volumes["T2"]
    values[values != 0] = 7.0
    values[tuple(np.argwhere(values != 0)[3])] = 9.0
    with pytest.raises(CaseError, match=r"T2 is constant \(7 to 7\) in the middle 96 %"):
        RECIPE.replace(intensity="zscore_robust").prepare(case)


def test_none_keeps_intensities() -> None:
    case = phantom()
    prepared = RECIPE.replace(intensity="none").prepare(case)
    np.testing.assert_array_equal(
        prepared.x[0, 2].numpy(), prepared.placement.to_network(case.volumes["T2"])
    )


def with_air(volumes: dict[str, Any], air: float, scale: float, shift: float) -> dict[str, Any]:
    """Scans on another scale, with another value around the brain and one faulty dark voxel."""
    found = {}
    for name, values in volumes.items():
        scan = np.where(values != 0, scale * values + shift, air).astype(np.float32)
        scan[15, 20, 10] = air - 50 * abs(scale)
        found[name] = scan
    return found


@pytest.mark.parametrize(
    "intensity",
    ["none", "minmax", "zscore", "zscore_minmax", "zscore_scaled", "zscore_robust", "zscore_box"],
)
@pytest.mark.parametrize("air", [-1024.0, -1.5, 3.0])
def test_black_is_where_air_is_in_the_network_input(intensity: Any, air: float) -> None:
    """CT-like and z-scored files: the background is not 0, and so it is normalized as the rest."""
    case = phantom()
    scale = 1.0 if air == -1.5 else 500.0
    volumes = with_air(dict(case.volumes), air, scale, air + 0.2 * scale)
    prepared = RECIPE.replace(intensity=intensity).prepare(replace(case, volumes=volumes))
    for channel, name in enumerate(MODALITIES):
        there = prepared.placement.to_network(volumes[name]) == np.float32(air)
        assert there.sum() > 1000
        values = prepared.x[0, channel].numpy()[there]
        np.testing.assert_allclose(values, prepared.background_value[channel], atol=1e-5)


@pytest.mark.parametrize("intensity", ["none", "zscore"])
def test_black_is_the_darkest_tissue_of_a_zscored_file_filled_with_zero(intensity: Any) -> None:
    """Within it, 0 is the mean brain; one faulty voxel does not decide what is dark."""
    case = phantom()
    volumes = {}
    for name, values in case.volumes.items():
        brain = values != 0
        scan = np.where(brain, (values - values[brain].mean()) / values[brain].std(), 0)
        scan[15, 20, 10] = -40.0
        volumes[name] = scan.astype(np.float32)
    prepared = RECIPE.replace(intensity=intensity, clip=None).prepare(
        replace(case, volumes=volumes)
    )
    for channel, name in enumerate(MODALITIES):
        x = prepared.x[0, channel].numpy()[prepared.placement.to_network(volumes[name]) != 0]
        dark = np.percentile(x, [0.05, 5])
        assert dark[0] < prepared.background_value[channel] < dark[1] < 0


@pytest.mark.parametrize("intensity", ["zscore", "zscore_minmax", "zscore_scaled", "zscore_robust"])
def test_zscores_do_not_depend_on_the_scanners_scale(intensity: Any) -> None:
    case = phantom()
    recipe = RECIPE.replace(intensity=intensity)
    scaled = replace(case, volumes={n: v * np.float32(8) for n, v in case.volumes.items()})
    assert torch.equal(recipe.prepare(case).x, recipe.prepare(scaled).x)


def test_channels_have_the_order_of_the_recipe() -> None:
    case = phantom()
    x = RECIPE.prepare(case).x
    order = RECIPE.replace(modalities=("FLAIR", "T1", "FLAIR"))
    # The union of nonzero voxels is the same for these modalities.
    assert torch.equal(order.prepare(case).x, x[:, [3, 0, 3]])


def test_brain_is_the_union_of_nonzero_modalities() -> None:
    case = phantom()
    holed = dict(case.volumes)
    holed["T1"] = holed["T1"].copy()
    holed["T1"][15, 20, 10] = 0
    x = RECIPE.replace(intensity="zscore").prepare(replace(case, volumes=holed))
    assert x.placement.to_patient(x.x[0, 0].numpy())[15, 20, 10] < -1


# --- space ---


@pytest.mark.parametrize("tilt", [0.0, 0.35])
def test_input_and_maps_do_not_depend_on_the_orientation(tilt: float) -> None:
    affine = np.eye(4)
    affine[:3, :3] = euler2mat(tilt, tilt / 2, -tilt) @ np.diag([1.0, 1.25, 1.5])
    affine[:3, 3] = (-16, -18, 5)
    upright = phantom(affine)
    flat = Preprocessing(modalities=("FLAIR",) * 3, plane="axial", size=(48, 36))
    expected = [recipe.prepare(upright) for recipe in (RECIPE, flat)]
    where = np.argwhere(upright.volumes["T1"] != 0)[::11]
    world = apply_affine(affine, where)
    assert len(all_codes()) == 48
    for codes in all_codes():
        case = turned(upright, codes)
        assert case.volumes["T1"].shape == tuple(SHAPE["RLAPSI".index(c) // 2] for c in codes)
        voxel = np.rint(apply_affine(np.linalg.inv(case.affine), world)).astype(int)
        for recipe, one in zip((RECIPE, flat), expected, strict=True):
            prepared = recipe.prepare(case)
            assert torch.equal(prepared.x, one.x)
            assert prepared.background_value == one.background_value
            np.testing.assert_array_equal(
                truth_on_network_grid(case, prepared.placement),
                truth_on_network_grid(upright, one.placement),
            )
            heat = np.random.default_rng(1).normal(size=one.x.shape[1:])
            back = prepared.placement.to_patient(heat)
            assert back.shape == (heat.shape[0], *case.shape)
            np.testing.assert_array_equal(
                back[(slice(None), *voxel.T)],
                one.placement.to_patient(heat)[(slice(None), *where.T)],
            )


def test_brats_scans_have_the_papers_grid() -> None:
    volume = np.zeros((240, 240, 155), np.float32)
    volume[60:180, 30:200, 5:150] = np.random.default_rng(0).uniform(1, 9, (120, 170, 145))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    case = Case("a", {"T1": volume}, affine, LAYOUTS["brats2018"])
    prepared = Preprocessing(modalities=("T1",)).prepare(case)
    assert prepared.x.shape == (1, 1, 192, 224, 160)
    assert prepared.warnings == ()
    back = prepared.placement.to_patient(prepared.placement.to_network(volume))
    np.testing.assert_array_equal(back, volume)


def test_size_is_the_smallest_multiple_of_the_divisor() -> None:
    case = phantom()
    default = Preprocessing(modalities=MODALITIES)
    assert default.prepare(case).x.shape[2:] == (64, 64, 32)
    assert default.replace(size=None).prepare(case).x.shape[2:] == (64, 64, 32)
    assert default.replace(size=None, divisor=8).prepare(case).x.shape[2:] == (40, 40, 24)


def test_the_crop_contains_the_brain() -> None:
    volume = np.zeros((100, 40, 30), np.float32)
    volume[2:50, 5:20, 5:20] = np.random.default_rng(0).uniform(1, 2, (48, 15, 15))
    case = Case("a", {"T1": volume}, np.eye(4), LAYOUTS["plain"])
    prepared = Preprocessing(modalities=("T1",), size=(64, 32, 32)).prepare(case)
    assert prepared.placement.start == (2, 4, -1)
    assert prepared.warnings == ()
    assert int((prepared.placement.to_network(volume) != 0).sum()) == int((volume != 0).sum())


def test_cropping_the_brain_is_a_warning() -> None:
    case = phantom()
    prepared = Preprocessing(modalities=MODALITIES, size=(16, 16, 16), divisor=16).prepare(case)
    whole = case.volumes["T1"] != 0
    cut = int(whole.sum() - (prepared.placement.to_network(case.volumes["T1"]) != 0).sum())
    assert cut > 0
    assert f"{cut} of its {int(whole.sum())} voxels" in prepared.warnings[0]
    assert prepared.warnings[0].startswith("head")


def test_spacing_outside_of_the_training_range_is_a_warning() -> None:
    recipe = RECIPE.replace(spacing_mm=(1.0, 1.0))
    assert recipe.prepare(phantom(np.diag([1 + 1e-6, 1, 1, 1]))).warnings == ()
    assert "1 x 1 x 2.5 mm" in recipe.prepare(phantom(np.diag([1, 1, 2.5, 1]))).warnings[0]


@pytest.mark.parametrize(("degrees", "warned"), [(0, False), (12, False), (20, True), (44, True)])
def test_tilted_scans_are_a_warning(degrees: int, warned: bool) -> None:
    affine = np.eye(4)
    affine[:3, :3] = euler2mat(0, 0, np.radians(degrees)) @ np.diag([-1.0, 1.25, 1.5])
    warnings = RECIPE.prepare(phantom(affine)).warnings
    assert any(f"tilted by {degrees} degrees" in warning for warning in warnings) == warned
    unsided = replace(phantom(affine), laterality_known=False)
    assert not any("tilted" in warning for warning in RECIPE.prepare(unsided).warnings)


def test_a_scan_without_background_is_a_warning() -> None:
    case = phantom()
    filled = replace(case, volumes={n: v + np.float32(1) for n, v in case.volumes.items()})
    assert "skull-stripped" in RECIPE.prepare(filled).warnings[0]


# --- slices ---


def test_the_slice_with_the_largest_tumor() -> None:
    case = phantom()
    recipe = Preprocessing(modalities=("FLAIR", "T1"), plane="axial", size=(48, 36))
    assert case.truth is not None
    areas = [int((case.truth[:, :, z] > 0).sum()) for z in range(SHAPE[2])]
    best = areas.index(max(areas))
    for choice in (None, "truth", best):
        prepared = recipe.prepare(case, choice)
        assert prepared.placement.slice_index == best
    assert prepared.x.shape == (1, 2, 48, 36)
    back = prepared.placement.to_patient(prepared.x[0].numpy())
    assert not back[..., np.arange(SHAPE[2]) != best].any()
    mask = np.zeros(SHAPE)
    mask[10:12, 20, 7] = 1
    assert recipe.prepare(case, mask=mask).placement.slice_index == 7
    assert largest_slice(np.flip(mask, 2), np.diag([1, 1, -1, 1])) == 7


def test_resection_cavities_do_not_count_as_tumor() -> None:
    case = phantom()
    recipe = Preprocessing(modalities=("FLAIR",), plane="axial")
    cavity = np.zeros(SHAPE, np.uint8)
    cavity[10:20, 10:20, 8] = 4
    cavity[15, 15, 10] = 2
    assert recipe.size == (224, 224)
    assert recipe.prepare(replace(case, truth=cavity)).placement.slice_index == 10


def test_slices_that_cannot_be_chosen() -> None:
    case = replace(phantom(), truth=None)
    recipe = Preprocessing(modalities=("FLAIR",), plane="axial", size=(48, 36))
    for bad, words in (
        ({}, "give a slice from 0 to 20"),
        ({"slice_index": "truth"}, "without a ground truth"),
        ({"slice_index": 0}, "a slice from 4 to 18"),
        ({"slice_index": -1}, "contains no brain"),
        ({"slice_index": 500}, "contains no brain"),
        ({"slice_index": "top"}, "expected an integer"),
        ({"mask": np.zeros(SHAPE)}, "the mask is empty"),
        ({"mask": np.ones((2, 3, 4))}, "grid of the case"),
    ):
        with pytest.raises(CaseError, match=words):
            recipe.prepare(case, **bad)
    with pytest.raises(CaseError, match="head: the ground truth contains no tumor"):
        recipe.prepare(replace(case, truth=np.zeros(SHAPE, np.uint8)))
    with pytest.raises(CaseError, match="leave the slice out"):
        RECIPE.prepare(case, 3)


# --- cases that cannot be used ---


def test_a_missing_modality_is_named() -> None:
    case = phantom()
    some = replace(case, volumes={"T1": case.volumes["T1"], "T2": case.volumes["T2"]})
    with pytest.raises(CaseError, match="head: the network needs T1ce, FLAIR, the case has T1, T2"):
        RECIPE.prepare(some)


@pytest.mark.parametrize("intensity", ["zscore_minmax", "zscore", "none"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda v: v * 0, "head: T1 is constant"),
        (lambda v: (v != 0) * np.float32(7), "head: T1 is constant .7. inside the brain"),
        (lambda v: np.where(v > 900, np.nan, v), "head: T1 has .* NaN"),
    ],
)
def test_constant_or_invalid_modalities(intensity: Any, spoil: Any, words: str) -> None:
    case = phantom()
    volumes = {**case.volumes, "T1": spoil(case.volumes["T1"]).astype(np.float32)}
    with pytest.raises(CaseError, match=words):
        RECIPE.replace(intensity=intensity).prepare(replace(case, volumes=volumes))


def test_scans_that_are_all_zero() -> None:
    case = phantom()
    empty = replace(case, volumes={n: v * 0 for n, v in case.volumes.items()})
    with pytest.raises(CaseError, match="head: every voxel of T1, T1ce, T2, FLAIR is zero"):
        RECIPE.prepare(empty)


def test_truth_on_network_grid() -> None:
    case = phantom()
    placement = RECIPE.prepare(case).placement
    truth = truth_on_network_grid(case, placement)
    assert truth.dtype == np.int64
    np.testing.assert_array_equal(placement.to_patient(truth), case.truth)
    with pytest.raises(CaseError, match="no truth"):
        truth_on_network_grid(replace(case, truth=None), placement)


# --- the recipe in a card ---


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        Preprocessing(
            modalities=("FLAIR",) * 3, intensity="zscore", size=(224, 224), plane="axial", clip=None
        ),
        Preprocessing(
            modalities=("T1",), intensity="none", size=None, divisor=16, spacing_mm=(0.5, 2)
        ),
    ],
)
def test_recipes_round_trip_through_json(recipe: Preprocessing) -> None:
    assert Preprocessing.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"sise": [32, 32, 32]}, "did you mean 'size'"),
        ({"modalities": "FLAIR"}, "modalities is 'FLAIR', expected a list of names, not empty"),
        ({"modalities": []}, r"modalities is \[\], expected a list of names, not empty"),
        ({"modalities": [1]}, r"modalities\[0\] is 1, expected text that is not empty"),
        ({"modalities": [""]}, r"modalities\[0\] is '', expected text that is not empty"),
        ({"intensity": "z-score"}, "intensity is 'z-score', expected 'zscore_minmax', "),
        ({"intensity": ["zscore"]}, "intensity has 1 entries, expected one name, or one entry"),
        ({"size": [192, 224]}, r"size is \[192, 224\], expected null or three multiples of 32"),
        ({"size": [192, 224, 161]}, "size is .*, expected null or three multiples of 32"),
        ({"size": 192}, "size is 192, expected a list of whole numbers above 0, or null"),
        ({"size": [192, 224, True]}, r"size\[2\] is True, expected a whole number above 0"),
        ({"size": [192, 224, 0]}, r"size\[2\] is 0, expected a whole number above 0"),
        ({"plane": "coronal"}, "plane is 'coronal', expected 'axial', or null"),
        ({"plane": "axial", "size": None}, "size is null, expected two whole numbers"),
        ({"plane": "axial", "size": [192, 224, 96]}, "size is .*, expected two whole numbers"),
        ({"plane": "axial", "size": [9, 9], "orientation": "LPS"}, "orientation is 'LPS', exp"),
        ({"plane": "axial", "size": [9, 9], "axis_order": [1, 0, 2]}, "axis_order is"),
        ({"plane": "axial", "size": [9, 9], "crop_to_brain": True}, "crop_to_brain is True"),
        ({"plane": "axial", "size": [9, 9], "voxel_mm": [1, 1, 1]}, "voxel_mm is"),
        ({"divisor": 0}, "divisor is 0, expected a whole number above 0"),
        ({"divisor": "32"}, "divisor is '32', expected a whole number above 0"),
        ({"clip": 0}, "clip is 0, expected a number above 0, or null"),
        ({"clip": True}, "clip is True, expected a number above 0, or null"),
        ({"clip": float("nan")}, "clip is nan, expected a number above 0, or null"),
        ({"clip": None, "intensity": "zscore_scaled"}, "zscore_scaled divides by it"),
        ({"clip": None, "intensity": "zscore_robust_scaled"}, "zscore_robust_scaled divides by it"),
        ({"spacing_mm": [2.0, 1.0]}, r"spacing_mm is \[2\.0, 1\.0\], expected \[smallest, larg"),
        ({"spacing_mm": [1.0]}, r"spacing_mm is \[1\.0\], expected a list of 2 numbers above 0"),
        ({"orientation": "RAR"}, "orientation is 'RAR', expected three axis codes"),
        ({"axis_order": [0, 1, 1]}, r"axis_order is \[0, 1, 1\], expected a permutation"),
        ({"voxel_mm": [1, 0, None]}, r"voxel_mm\[1\] is 0, expected a number above 0, or null"),
        ({"voxel_mm": [1, None]}, r"voxel_mm is \[1, None\], expected a list of 3 numbers"),
        ({"resampling": "nnunet"}, "without voxel_mm and crop_to_brain"),
        ({"crop_to_brain": 1}, "crop_to_brain is 1, expected true or false"),
    ],
)
def test_invalid_recipes(change: dict[str, Any], word: str) -> None:
    with pytest.raises(ModelError, match=word) as caught:
        Preprocessing.from_dict({**RECIPE.to_dict(), **change}, source="card.json")
    assert str(caught.value).startswith("card.json: ")
    assert "\n" not in str(caught.value)


def test_a_recipe_has_a_json_schema() -> None:
    properties = Preprocessing.model_json_schema()["properties"]
    assert properties["divisor"]["exclusiveMinimum"] == 0
    assert "zscore_scaled" in properties["intensity"]["anyOf"][0]["enum"]
    assert all(entry.get("description") for entry in properties.values())


def test_modalities_are_required() -> None:
    with pytest.raises(ModelError, match="missing required key 'modalities'; add it, for example"):
        Preprocessing.from_dict({})
    with pytest.raises(ModelError, match="expected a mapping"):
        Preprocessing.from_dict([])


# --- real scans ---


@pytest.mark.real
@pytest.mark.parametrize("year", ["brats2018", "brats2023"])
def test_real_cases_fit_the_papers_grid(year: str) -> None:
    root = Path(os.environ.get("NEUROXAI_SHARED") or Path(__file__).parents[3] / "shared" / "data")
    if not (root / year).exists():
        pytest.skip(f"no real scans at {root / year}")
    case = read_case(find_cases(root / year)[0])
    prepared = Preprocessing(modalities=MODALITIES).prepare(case)
    assert prepared.x.shape == (1, 4, 192, 224, 160)
    assert prepared.warnings == ()
    assert float(prepared.x.min()) == 0
    assert float(prepared.x.max()) == 1
    flair = case.volumes["FLAIR"]
    np.testing.assert_array_equal(
        prepared.placement.to_patient(prepared.placement.to_network(flair)), flair
    )


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([{"step": "scal"}], r"steps\[0\]\.step is 'scal'; did you mean 'scale'"),
        ([{"low": 1.0}], r"missing required key 'steps\[0\]\.step'; known: center_crop, "),
        ([{"step": "scale", "lo": 1}], r"unknown key 'steps\[0\]\.lo'; did you mean 'low'"),
        (
            [{"step": "clip_percentiles", "upper": 200.0}],
            "upper is 200.0, expected a number from 0",
        ),
        ([{"step": "resize"}], r"steps\[0\]: either size or longest"),
        ([{"step": "scale", "channels": [1]}], r"channels is \[1\], expected indices of the 1 mod"),
    ],
)
def test_steps_are_validated(steps: list[dict[str, object]], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Preprocessing.from_dict({"modalities": ["T1"], "steps": steps})


def test_steps_replace_the_other_keys() -> None:
    with pytest.raises(ModelError, match="clip has no effect with steps"):
        Preprocessing.from_dict({"modalities": ["T1"], "steps": [], "clip": 3.0})
