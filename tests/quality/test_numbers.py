"""Checks of the numbers of a sequence on images whose figures are known exactly."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from neuroxai.data.case import Case
from neuroxai.data.case_quality import Finding
from neuroxai.data.layouts import get_layout
from neuroxai.quality.coarse import CoarseCase
from neuroxai.quality.copies import copies
from neuroxai.quality.numbers import numbers

SHAPE = (30, 36, 28)


def image(seed: int = 0) -> NDArray[np.float32]:
    """Return values 100 to 900 in a box in air, 12 000 of them."""
    values = np.zeros(SHAPE, np.float32)
    generator = np.random.default_rng(seed)
    values[5:25, 6:30, 2:27] = generator.uniform(100, 900, (20, 24, 25))
    return values


def found(values: NDArray[np.float32]) -> list[Finding]:
    case = Case("made", {"T2": values}, np.eye(4), get_layout("plain"))
    return list(numbers(CoarseCase.of(case)))


def test_a_magnitude_image_has_no_alarm() -> None:
    assert not found(image())
    assert not found(np.rint(image()))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_numbers_are_counted(wrong: float) -> None:
    values = image()
    values[10, 10, 10:14] = wrong
    (alarm,) = found(values)
    assert alarm.value == 4
    assert alarm.sequences == ("T2",)


def test_a_spike_is_measured_from_the_median() -> None:
    values = image()
    values[10, 10, 10] = 50_000
    (alarm,) = found(values)
    inside = values[values > 0]
    middle, high = np.quantile(inside, (0.5, 0.999))
    assert alarm.value == pytest.approx((50_000 - middle) / (high - middle), rel=0.02)
    values[10, 10, 10] = 1e30
    assert found(values)[0].value > 1e20


def test_a_display_window_is_measured_by_the_voxels_at_its_end() -> None:
    values = image()
    inside = values[values > 0]
    high = np.quantile(inside, 0.98)
    windowed = np.rint(np.clip(values / high, 0, 1) * 255).astype(np.float32)
    (alarm,) = found(windowed)
    assert alarm.value == pytest.approx(100 * float((windowed[values > 0] == 255).mean()))
    assert alarm.value > 2
    half = (0.3 - 0.1) / 100  # a few voxels at the maximum are usual
    values[values >= np.quantile(inside, 1 - half)] = 900
    assert not found(values)


def test_a_z_score_a_label_map_and_a_ct_are_named() -> None:
    values = image()
    inside = values > 0
    score = np.where(inside, (values - values[inside].mean()) / values[inside].std(), 0)
    (alarm,) = found(score.astype(np.float32))
    assert "normalized" in alarm.problem
    assert alarm.value == pytest.approx(50, abs=2)
    whole = ((values - values.mean()) / values.std()).astype(np.float32)  # air below zero too
    (alarm,) = found(whole)
    assert "normalized" in alarm.problem
    assert alarm.value == pytest.approx(float(whole.min()))
    (alarm,) = found((np.digitize(values, [1, 300, 600])).astype(np.float32))
    assert "label map" in alarm.problem
    assert alarm.value == 3
    (alarm,) = found(np.where(inside, values / 10, -1000).astype(np.float32))
    assert "CT" in alarm.problem


def test_a_constant_image_is_an_alarm() -> None:
    (alarm,) = found(np.full(SHAPE, 7, np.float32))
    assert "constant" in alarm.problem


def test_copies_are_found_in_other_units_and_not_among_similar_images() -> None:
    shape = (40, 44, 36)
    generator = np.random.default_rng(1)
    one = np.zeros(shape, np.float32)
    one[2:38, 2:42, 2:34] = generator.uniform(100, 900, (36, 40, 32))
    similar = one + 60 * generator.standard_normal(shape).astype(np.float32) * (one > 0)

    def pairs(**images: NDArray[np.float32]) -> list[tuple[str, ...]]:
        case = Case("made", images, np.diag([2.0, 2.0, 2.0, 1.0]), get_layout("plain"))
        return [each.sequences for each in copies(CoarseCase.of(case))]

    assert not pairs(T1=one, T2=similar)
    assert pairs(T1=one, T2=similar, FLAIR=np.sqrt(one) * 31) == [("T1", "FLAIR")]
