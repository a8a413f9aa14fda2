"""Phantoms: reproducible, consistent with their labels, and correctly oriented."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError, MissingExtraError
from neuroxai.data import template
from neuroxai.data.case import CLASSES, MODALITIES
from neuroxai.data.phantom import VARIANTS, Phantom, anatomy, make, make_phantom
from neuroxai.data.phantom.artifacts import Scanner, draw_scanners
from neuroxai.data.phantom.make import MIDDLE, grid
from session_cache import phantom

pytest.importorskip("nilearn", reason="the phantoms' anatomy lies in nilearn")

NCR, ED, ET = (CLASSES.index(name) for name in ("NCR", "ED", "ET"))
SEEDS = range(10)


def cubic_centimeters(made: Phantom, *classes: int) -> float:
    truth = made.case.truth
    assert truth is not None
    return float(np.isin(truth, classes).sum() * np.prod(made.case.spacing) / 1000)


def arrays(made: Phantom) -> list[NDArray[Any]]:
    assert made.case.truth is not None
    return [*made.case.volumes.values(), made.case.truth, made.tissues]


def test_voxels_do_not_depend_on_the_global_random_state() -> None:
    threads = torch.get_num_threads()
    first = make_phantom(5, spacing=3.0, variant="rim_t1ce")
    np.random.seed(1)  # noqa: NPY002 (the global state is what this is about)
    torch.manual_seed(1)
    numpy_state: Any = np.random.get_state()  # noqa: NPY002
    torch_state = torch.get_rng_state()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        second = make_phantom(5, spacing=3.0, variant="rim_t1ce")
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(arrays(first), arrays(second), strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.recipe == second.recipe
    after: Any = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(numpy_state[1], after[1])
    assert numpy_state[2:] == after[2:]
    assert torch.equal(torch_state, torch.get_rng_state())


def test_seeds_differ_in_anatomy_and_in_tumor() -> None:
    a, b = phantom(0, grade="HGG"), phantom(1, grade="HGG")
    assert (a.tissues != b.tissues).mean() > 0.02
    assert np.any(a.case.truth != b.case.truth)


def test_the_grid_is_that_of_brats_at_1_mm() -> None:
    shape, affine, _ = grid(1.0)
    assert shape == (240, 240, 155)
    np.testing.assert_array_equal(
        affine, [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    assert grid(2.0)[0] == (96, 96, 80)


@pytest.mark.parametrize("spacing", [0.8, 1.0, 1.3, 2.0, 3.0])
def test_coordinates_and_affine_agree(spacing: float) -> None:
    shape, affine, axes = grid(spacing)
    for corner in ((0, 0, 0), tuple(n - 1 for n in shape)):
        world = affine[:3, :3] @ corner + affine[:3, 3]
        local = [axis[i] for axis, i in zip(axes, corner, strict=True)]
        np.testing.assert_allclose(world, MIDDLE + local, atol=1e-4)


def test_images_are_skull_stripped_integers_and_truth_is_in_the_brain() -> None:
    for seed in range(4):
        made = phantom(seed)
        case = made.case
        assert list(case.volumes) == list(MODALITIES)
        brain = case.volumes["T1"] > 0
        for volume in case.volumes.values():
            assert volume.dtype == np.float32
            assert volume.shape == made.tissues.shape == case.shape
            np.testing.assert_array_equal(volume > 0, brain)
            np.testing.assert_array_equal(volume, np.rint(volume))
            assert volume.min() == 0
            assert 100 < np.percentile(volume[brain], 99) < 6000
        assert case.truth is not None
        assert case.truth.dtype == np.uint8
        assert set(np.unique(case.truth)) <= {0, NCR, ED, ET}
        assert brain[case.truth > 0].all()
        assert brain[made.tissues > 0].all()
        assert set(np.unique(made.tissues)) == {0, 1, 2, 3}
        liters = (made.tissues > 0).sum() * 27e-6
        assert 1.1 < liters < 2.0
        # The head is not cut at the borders of the grid.
        sides = [brain[0], brain[-1], brain[:, 0], brain[:, -1], brain[:, :, -1]]
        assert not any(side.any() for side in sides)


def test_high_grade_has_enhancement_necrosis_and_edema_low_grade_little() -> None:
    high = [phantom(seed, grade="HGG") for seed in SEEDS]
    low = [phantom(seed, grade="LGG") for seed in SEEDS]
    rim_high = [cubic_centimeters(p, ET) for p in high]
    rim_low = [cubic_centimeters(p, ET) / cubic_centimeters(p, NCR, ET) for p in low]
    assert min(rim_high) > 0.2
    assert np.median(rim_low) < 0.02
    assert np.mean(rim_low) < 0.12
    assert np.mean([cubic_centimeters(p, NCR) > 0.1 for p in high]) > 0.8
    swelling_high = np.median([cubic_centimeters(p, ED) for p in high])
    swelling_low = np.median([cubic_centimeters(p, ED) for p in low])
    assert swelling_high > 2 * swelling_low
    cores = [cubic_centimeters(p, NCR, ET) for p in high + low]
    assert 2 < np.min(cores) < np.max(cores) < 250


def test_images_agree_with_the_labels() -> None:
    edema_ratios, rim_ratios, fluid_ratios = [], [], []
    for seed in SEEDS:
        made = phantom(seed, grade="HGG")
        truth, volumes = made.case.truth, made.case.volumes
        assert truth is not None
        white = (made.tissues == 3) & (truth == 0)
        fluid = (made.tissues == 1) & (truth == 0)
        median = {name: np.median(volume[white]) for name, volume in volumes.items()}
        rim_ratios.append(np.median(volumes["T1ce"][truth == ET]) / median["T1ce"])
        edema_ratios.append(np.median(volumes["FLAIR"][truth == ED]) / median["FLAIR"])
        fluid_ratios.append(np.median(volumes["T2"][fluid]) / median["T2"])
    for ratios in (edema_ratios, rim_ratios, fluid_ratios):
        assert np.median(ratios) > 1.25
        assert np.mean(np.array(ratios) > 1.05) > 0.8


def test_a_healthy_brain_has_neither_truth_nor_grade() -> None:
    made = phantom(2, tumor=False)
    assert made.case.grade is None
    assert made.case.truth is not None
    assert not made.case.truth.any()
    # The anatomy does not depend on the tumor, except for its displacement.
    assert (made.tissues != phantom(2, grade="LGG").tissues).mean() < 0.1


def test_some_brains_are_healthy_and_both_grades_occur() -> None:
    from neuroxai.data.phantom.field import stream

    healthy = [seed for seed in range(100) if stream(seed, "case").random() < 0.04]
    assert 1 <= len(healthy) <= 9
    assert phantom(healthy[0]).case.grade is None
    assert {phantom(seed).case.grade for seed in range(4)} >= {"HGG", "LGG"}


@pytest.mark.parametrize("seed", [4])
def test_a_seed_is_the_same_tumor_in_the_same_place_at_every_spacing(seed: int) -> None:
    made = [phantom(seed, spacing=spacing, grade="HGG") for spacing in (1.0, 2.0, 3.0)]
    assert [p.case.shape for p in made] == [(240, 240, 155), (96, 96, 80), (64, 64, 54)]
    for classes in ((NCR, ED, ET), (NCR, ET)):
        volumes = [cubic_centimeters(p, *classes) for p in made]
        np.testing.assert_allclose(volumes, volumes[0], rtol=0.12)
    centers = []
    for p in made:
        assert p.case.truth is not None
        voxel = np.argwhere(p.case.truth > 0).mean(axis=0)
        centers.append(p.case.affine[:3, :3] @ voxel + p.case.affine[:3, 3])
    np.testing.assert_allclose(centers, [centers[0]] * 3, atol=1.5)


def test_the_tumor_is_where_it_was_grown() -> None:
    """The origin of growth, in mm from the center, agrees with the affine."""
    from neuroxai.data.phantom.tumor import draw_plan, grow

    sides = set()
    for seed in SEEDS:
        plan = draw_plan(seed, "HGG")
        if plan.foci > 1:
            continue
        center = grow(seed, plan, anatomy.draw_warp(seed)[0]).centers[0] + MIDDLE
        made = phantom(seed, grade="HGG")
        assert made.case.truth is not None
        voxel = np.argwhere(np.isin(made.case.truth, (NCR, ET))).mean(axis=0)
        world = made.case.affine[:3, :3] @ voxel + made.case.affine[:3, 3]
        assert np.linalg.norm(world - center) < 20
        if abs(center[0] - MIDDLE[0]) > 15:
            assert np.sign(world[0] - MIDDLE[0]) == np.sign(center[0] - MIDDLE[0])
            sides.add(float(np.sign(center[0] - MIDDLE[0])))
    assert sides == {-1.0, 1.0}


def test_superior_and_anterior_agree_with_the_template() -> None:
    """In world coordinates, the brain matches the template; mirrored, it does not."""
    from scipy.ndimage import affine_transform

    made = phantom(3, tumor=False)
    template = anatomy.template_for(3.0)
    t1 = template.maps[0, 0].numpy()
    # Phantom voxel to mm from its center, to template mm, to template voxel.
    matrix = made.case.affine[:3, :3]
    offset = made.case.affine[:3, 3] - MIDDLE + anatomy.CENTER_MNI - template.start
    expected = affine_transform(t1, matrix, offset, output_shape=made.case.shape, order=1)

    def likeness(volume: NDArray[Any]) -> float:
        return float(np.corrcoef(volume.ravel(), expected.ravel())[0, 1])

    image = made.case.volumes["T1"]
    assert likeness(image) > 0.85
    assert likeness(image) > likeness(image[:, ::-1]) + 0.03
    assert likeness(image) > likeness(image[:, :, ::-1]) + 0.03


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", [3, 9])
def test_the_grade_changes_only_the_planted_cause(variant: str, seed: int) -> None:
    high, low = (phantom(seed, variant=variant, grade=grade) for grade in ("HGG", "LGG"))
    assert high.cause is not None
    assert low.cause is not None
    assert (high.case.grade, low.case.grade) == ("HGG", "LGG")
    assert high.cause.modalities == VARIANTS[variant]
    mask = high.cause.mask
    np.testing.assert_array_equal(mask, low.cause.mask)
    np.testing.assert_array_equal(high.tissues, low.tissues)
    assert high.recipe["drawn"] == low.recipe["drawn"]
    assert mask.any()
    for name in MODALITIES:
        changed = high.case.volumes[name] != low.case.volumes[name]
        if name in high.cause.modalities:
            assert not (changed & ~mask).any()
            assert changed[mask].mean() > 0.7
        else:
            assert not changed.any()
    assert high.case.truth is not None
    assert low.case.truth is not None
    relabeled = high.case.truth != low.case.truth
    if variant == "rim_t1ce":
        # Without enhancement there is no class ET.
        assert not (low.case.truth == ET).any()
        assert relabeled.any()
        assert mask[relabeled].all()
    else:
        assert not relabeled.any()


@pytest.mark.parametrize(("variant", "name"), [("rim_t1ce", "T1ce"), ("edema_flair", "FLAIR")])
def test_blur_and_ringing_do_not_spread_the_grade(
    monkeypatch: pytest.MonkeyPatch, variant: str, name: str
) -> None:
    def poor(seed: int, *, flat_bias: bool = False) -> dict[str, Scanner]:
        drawn = draw_scanners(seed, flat_bias=flat_bias)
        return {m: replace(s, blur=4.0, slice_mm=9.0, ringing=0.5) for m, s in drawn.items()}

    monkeypatch.setattr(make, "draw_scanners", poor)
    high, low = (
        make_phantom(3, spacing=3.0, variant=variant, grade=grade) for grade in ("HGG", "LGG")
    )
    assert high.cause is not None
    changed = high.case.volumes[name] != low.case.volumes[name]
    assert changed.any()
    assert not (changed & ~high.cause.mask).any()


def test_a_drawn_grade_gives_the_phantom_of_that_grade() -> None:
    grades = set()
    for seed in range(4):
        made = phantom(seed, variant="edema_flair")
        assert made.case.grade is not None
        twin = phantom(seed, variant="edema_flair", grade=made.case.grade)
        np.testing.assert_array_equal(made.case.volumes["FLAIR"], twin.case.volumes["FLAIR"])
        grades.add(made.case.grade)
    assert grades == {"HGG", "LGG"}


def test_planted_causes_have_the_right_sign_and_position() -> None:
    def change(variant: str, name: str) -> tuple[NDArray[Any], Phantom]:
        high, low = (phantom(3, variant=variant, grade=grade) for grade in ("HGG", "LGG"))
        return high.case.volumes[name] - low.case.volumes[name], high

    rim, made = change("rim_t1ce", "T1ce")
    assert made.case.truth is not None
    assert (rim[made.case.truth == ET] > 0).mean() > 0.95
    edema, made = change("edema_flair", "FLAIR")
    assert made.case.truth is not None
    assert (edema[made.case.truth == ED] > 0).mean() > 0.9
    # LPS: small indices are the patient's right and front.
    marker, made = change("corner_marker", "T2")
    i, j, k = np.nonzero(marker)
    assert i.max() < 6
    assert j.max() < 6
    assert set(k) == set(range(made.case.shape[2]))
    assert made.tissues[marker != 0].max() == 0
    tilt, _ = change("scanner_bias", "T1")
    middle = tilt.shape[0] // 2
    assert tilt[middle + 4 :].sum() > 0 > tilt[: middle - 4].sum()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": -1}, "invalid phantom seed"),
        ({"seed": 1.5}, "invalid phantom seed"),
        ({"seed": True}, "invalid phantom seed"),
        ({"spacing": 0.5}, "0.8 to 3 mm"),
        ({"spacing": float("nan")}, "0.8 to 3 mm"),
        ({"grade": "II"}, "HGG, LGG or None"),
        ({"variant": "rim_t1c"}, "did you mean 'rim_t1ce'"),
        ({"tumor": False, "grade": "HGG"}, "neither a grade nor a planted cause"),
        ({"tumor": False, "variant": "scanner_bias"}, "neither a grade nor a planted cause"),
    ],
)
def test_inconsistent_arguments_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(CaseError, match=words):
        make_phantom(**{"seed": 1, **arguments})


def test_without_nilearn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    template._load.cache_clear()
    anatomy._load.cache_clear()
    anatomy._blurred.cache_clear()
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'neuroxai\[phantom\]'"):
        make_phantom(1, spacing=3.0)
