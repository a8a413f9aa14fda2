"""The alignment check on made brains with a known shift, turn or mirror image."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from neuroxai.data.case import Case
from neuroxai.data.layouts import get_layout
from neuroxai.quality.alignment import alignment, best_shift
from neuroxai.quality.coarse import CoarseCase

SHAPE = (60, 70, 54)
SPACING = 2.5
NAMES = ("T1", "T1ce", "T2", "FLAIR")


@pytest.fixture(scope="module")
def brain() -> dict[str, NDArray[np.float32]]:
    """Return one smooth random anatomy under four contrasts, in an ellipsoid of 1.4 l."""
    generator = np.random.default_rng(4)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    inside = (grid**2).sum(axis=0) < 0.85
    anatomy = ndimage.gaussian_filter(generator.standard_normal(SHAPE), 2.2)
    anatomy /= anatomy.std()
    contrasts = {"T1": anatomy, "T1ce": anatomy + 0.2 * anatomy**2, "T2": -anatomy}
    contrasts["FLAIR"] = np.cos(anatomy)
    made = {}
    for name in NAMES:
        image = 500 + 100 * contrasts[name] + 10 * generator.standard_normal(SHAPE)
        made[name] = np.where(inside, image, 0).astype(np.float32)
    return made


def alarms(images: dict[str, NDArray[np.float32]]) -> list[tuple[tuple[str, ...], str, float]]:
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    scan = CoarseCase.of(Case("made", images, affine, get_layout("plain")))
    return [(each.sequences, each.problem, each.value) for each in alignment(scan)]


def test_one_anatomy_under_four_contrasts_has_no_alarm(
    brain: dict[str, NDArray[np.float32]],
) -> None:
    assert not alarms(brain)


@pytest.mark.parametrize(("name", "axis", "voxels"), [("T2", 0, 2), ("FLAIR", 2, -4)])
def test_a_shift_is_measured_in_mm_and_its_sequence_named(
    brain: dict[str, NDArray[np.float32]], name: str, axis: int, voxels: int
) -> None:
    (found,) = alarms(brain | {name: np.roll(brain[name], voxels, axis)})
    assert found[0] == (name,)
    assert "shifted" in found[1]
    assert found[2] == pytest.approx(abs(voxels) * SPACING, abs=0.8)


def test_a_turn_about_the_center_is_found_though_it_shifts_nothing(
    brain: dict[str, NDArray[np.float32]],
) -> None:
    turned = ndimage.rotate(brain["T1"], 7, axes=(0, 1), reshape=False, order=1)
    (found,) = alarms(brain | {"T1": turned})
    assert found[0] == ("T1",)
    assert "turned" in found[1]


def test_a_mirror_image_and_another_anatomy_are_told_apart(
    brain: dict[str, NDArray[np.float32]],
) -> None:
    (found,) = alarms(brain | {"T1ce": brain["T1ce"][::-1]})
    assert found[0] == ("T1ce",)
    assert "left and right" in found[1]
    noise = np.random.default_rng(7).uniform(300, 700, SHAPE).astype(np.float32)
    (found,) = alarms(brain | {"T2": np.where(brain["T2"] > 0, noise, 0).astype(np.float32)})
    assert found[0] == ("T2",)
    assert "same anatomy" in found[1]


def test_two_faulty_sequences_are_both_named() -> None:
    """With two of five shifted in different ways, the three others agree."""
    generator = np.random.default_rng(2)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    inside = (grid**2).sum(axis=0) < 0.85
    anatomy = ndimage.gaussian_filter(generator.standard_normal(SHAPE), 2.2)
    image = np.where(inside, 500 + 100 * anatomy / anatomy.std(), 0).astype(np.float32)
    images = dict.fromkeys((*NAMES, "ADC"), image + 0)
    images["T1"] = np.roll(image, 3, 0)
    images["ADC"] = np.roll(image, -4, 1)
    assert {each[0] for each in alarms(images)} == {("T1",), ("ADC",)}


def test_the_best_shift_is_that_of_an_exhaustive_search() -> None:
    generator = np.random.default_rng(3)
    one, other = generator.standard_normal((2, 2, 9, 11, 10)).astype(np.float32)
    peak, shift = best_shift(one, other, (10.0, 10.0, 10.0))
    padded = np.pad(other, [(0, 0), (2, 2), (2, 2), (2, 2)])
    scores = {}
    for move in np.ndindex(5, 5, 5):
        part = padded[
            (slice(None), *(slice(m, m + n) for m, n in zip(move, one.shape[1:], strict=True)))
        ]
        scores[tuple(2 - m for m in move)] = float((one.astype(np.float64) * part).sum())
    best = max(scores, key=lambda key: scores[key])
    size = float(
        np.sqrt((one.astype(np.float64) ** 2).sum() * (other.astype(np.float64) ** 2).sum())
    )
    assert peak == pytest.approx(scores[best] / size, rel=1e-4)
    assert np.abs(shift / 10 - best).max() < 0.51
