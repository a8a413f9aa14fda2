"""Checks of the foreground on ellipsoids, whose volumes and cuts have closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from neuroxai.data.case import Case
from neuroxai.data.case_quality import Alarm, Finding
from neuroxai.data.layouts import get_layout
from neuroxai.quality import check_case
from neuroxai.quality.coarse import CannotTellError, CoarseCase
from neuroxai.quality.extent import cut, dark_band, same_extent, volume

SHAPE = (56, 64, 52)
SPACING = 3.0
NAMES = ("T1", "T1ce", "T2", "FLAIR")
BRAIN = (64.0, 84.0, 62.0)  # semi-axes in mm: 1.40 l


def distance(axes: tuple[float, ...] = BRAIN) -> NDArray[np.float64]:
    """Return the distance from the center in units of an ellipsoid's semi-axes."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"))
    middle = (np.array(SHAPE) - 1)[:, None, None, None] / 2
    place: NDArray[np.float64] = (grid - middle) * SPACING / np.array(axes)[:, None, None, None]
    radius: NDArray[np.float64] = np.sqrt((place**2).sum(axis=0))
    return radius


def coarse(images: dict[str, NDArray[np.float64]]) -> CoarseCase:
    return CoarseCase.of(study(images))


def study(images: dict[str, NDArray[np.float64]]) -> Case:
    # Stored as P, I, R, to find axes that are taken for each other.
    affine = np.array([[0, 0, SPACING, 0], [-SPACING, 0, 0, 0], [0, -SPACING, 0, 0], [0, 0, 0, 1]])
    arrays = {
        name: image.transpose(1, 2, 0)[::-1, ::-1].astype(np.float32)
        for name, image in images.items()
    }
    return Case("made", arrays, affine, get_layout("plain"))


def brain(seed: int = 0, axes: tuple[float, ...] = BRAIN) -> NDArray[np.float64]:
    image = np.random.default_rng(seed).uniform(400, 600, SHAPE)
    image[distance(axes) > 1] = 0
    return image


def four(axes: tuple[float, ...] = BRAIN) -> dict[str, NDArray[np.float64]]:
    return {name: brain(seed, axes) for seed, name in enumerate(NAMES)}


def liters(axes: tuple[float, ...]) -> float:
    return float(4 / 3 * np.pi * np.prod(axes)) / 1e6


def test_a_brain_of_usual_size_has_no_alarm() -> None:
    scan = coarse(four())
    assert scan.spacing == (3.0, 3.0, 3.0)
    assert scan.shape == SHAPE
    assert float(scan.brain.sum()) * scan.voxel_ml / 1000 == pytest.approx(liters(BRAIN), rel=0.01)
    for check in (volume, dark_band, same_extent, cut):
        assert not list(check(scan))


@pytest.mark.parametrize("factor", [0.75, 1.19])
def test_the_volume_is_that_of_the_ellipsoid(factor: float) -> None:
    axes = tuple(factor * axis for axis in BRAIN)
    assert liters(axes) < 0.8 or liters(axes) > 2.2
    (alarm,) = volume(coarse(four(axes)))
    assert alarm.sequences == ()
    assert alarm.value == pytest.approx(liters(axes), rel=0.01)


def test_only_the_sequence_with_a_head_is_named() -> None:
    images = four() | {"T2": brain(5, tuple(1.18 * axis for axis in BRAIN))}
    (alarm,) = volume(coarse(images))
    assert alarm.sequences == ("T2",)
    (differs,) = same_extent(coarse(images))
    assert differs.sequences == ("T2",)
    # Dice of two concentric ellipsoids, one of them larger by a factor per axis.
    assert differs.value == pytest.approx(2 / (1 + 1.18**3), rel=0.01)


@pytest.mark.parametrize(("axis", "side"), [(0, 1), (1, -1), (2, 1), (2, -1)])
def test_the_area_of_a_cut_is_that_of_the_ellipsoid(axis: int, side: int) -> None:
    height = 0.5
    grid = (np.arange(SHAPE[axis]) - (SHAPE[axis] - 1) / 2) * SPACING / BRAIN[axis]
    beyond = np.expand_dims(side * grid > height, [a for a in range(3) if a != axis])
    images = {name: np.where(beyond, 0, image) for name, image in four().items()}
    (alarm,) = cut(coarse(images))
    last = (side * grid)[side * grid <= height].max()
    assert alarm.value == pytest.approx(1 - last**2, abs=0.03)
    assert alarm.sequences == ()


def test_a_dark_ring_under_the_surface_is_found_in_the_sequence_that_has_it() -> None:
    images = four()
    radius = distance()
    ring = (radius > 0.86) & (radius < 0.94)
    ring[: SHAPE[0] // 2] = False  # on the right only
    images["T1"] = np.where(ring, 20, images["T1"])
    (alarm,) = dark_band(coarse(images))
    assert alarm.sequences == ("T1",)
    depth = coarse(images).depth
    near = (depth > 4) & (depth < 20)
    assert alarm.value == pytest.approx(100 * float((near & ring).sum() / near.sum()), rel=0.02)


def test_checks_that_need_a_stripped_brain_cannot_tell_in_a_head() -> None:
    scan = coarse(four(tuple(1.2 * axis for axis in BRAIN)))
    for check in (cut, dark_band):
        with pytest.raises(CannotTellError, match="instead of"):
            list(check(scan))


def test_a_slice_and_a_single_sequence_are_not_checked_with_the_reason() -> None:
    images = four()
    one = images["T1"][:, :, 20:21].astype(np.float32)
    found = check_case(Case("slice", {"FLAIR": one}, np.eye(4), get_layout("plain")))
    assert not found.alarms
    assert found.passed == ("numbers",)
    reasons = {each.check: each.reason for each in found.not_checked}
    assert reasons["volume"] == "needs a 3D scan"
    picture = Case("picture", {"gray": np.minimum(one, 500)}, np.eye(4), get_layout("plain"))
    found = check_case(picture)
    reasons = {each.check: each.reason for each in found.not_checked}
    assert reasons["numbers"].startswith("needs the values of a scan")
    assert not found.alarms
    found = check_case(study({"T1": images["T1"], "T2": images["T2"]}))
    reasons = {each.check: each.reason for each in found.not_checked}
    assert reasons["contrast"] == "needs T1, T1ce, T2, FLAIR; the case has no T1ce, FLAIR"
    assert reasons["alignment"].startswith("needs three sequences")


def test_spikes_and_noise_in_air_leave_the_foreground_as_it_is() -> None:
    images = four()
    generator = np.random.default_rng(9)
    images["T1"] = np.hypot(images["T1"], 5 * generator.standard_normal(SHAPE))
    images["FLAIR"][3, 4, 5] = images["T2"][30, 30, 30] = 1e30
    assert not list(volume(coarse(images)))
    assert not list(same_extent(coarse(images)))


def test_an_image_without_any_values_is_an_alarm_and_not_an_error() -> None:
    images = four() | {"T1": np.zeros(SHAPE)}
    found = check_case(study(images))
    names = {each.check: each for each in found.alarms}
    assert names["numbers"].sequences == ("T1",)
    assert check_case(study({name: np.zeros(SHAPE) for name in NAMES})).alarms


def test_findings_are_sentences_and_json() -> None:
    alarm: Finding = next(volume(coarse(four(tuple(1.2 * axis for axis in BRAIN)))))
    assert isinstance(alarm, Alarm)
    assert str(alarm) == (
        "the foreground is larger than a brain, as of a head with its skull (volume 2.41 l, limit "
        "2.2 l); remove the skull with a skull-stripping program"
    )
    described = alarm.describe()
    assert described["threshold"] == 2.2
    assert described["text"] == str(alarm)
