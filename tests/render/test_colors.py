"""Colors: limits against a percentile by hand, labels against the order in the data package."""

from __future__ import annotations

import numpy as np
import pytest

from neuroxai.data.case import CLASSES, REGIONS
from neuroxai.render.colors import (
    LABELS,
    TARGET_CLASSES,
    Limits,
    color_limits,
    gray_window,
    label_layer,
)


def percentile_by_hand(values: np.ndarray, percent: float) -> float:
    """Linear interpolation between order statistics."""
    ordered = sorted(abs(float(v)) for v in values.ravel())
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e25])
def test_signed_limits_are_symmetric_about_zero(scale: float) -> None:
    values = np.random.default_rng(0).normal(size=(5, 7, 3)) * scale
    limits = color_limits(values, signed=True)
    assert limits.vmax == pytest.approx(percentile_by_hand(values, 99.5), rel=1e-12)
    assert limits.vmin == -limits.vmax
    assert limits.cmap == "RdBu_r"


def test_unsigned_limits_start_at_zero() -> None:
    values = np.random.default_rng(0).random((5, 7))
    limits = color_limits(values, signed=False)
    assert (limits.vmin, limits.cmap) == (0.0, "inferno")
    assert limits.vmax == pytest.approx(percentile_by_hand(values, 99.5))


def test_negative_values_of_an_unsigned_method_are_shown() -> None:
    assert color_limits(np.array([-1.0, 2.0]), signed=False).vmin < 0


def test_a_sparse_map_takes_its_largest_value() -> None:
    values = np.zeros(10_000)
    values[17] = -3.0
    assert color_limits(values, signed=True) == Limits(-3.0, 3.0, "RdBu_r")


@pytest.mark.parametrize("values", [np.zeros((3, 2)), np.empty(0), np.array([np.nan, 1.0])])
def test_maps_without_a_color_scale_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no color scale"):
        color_limits(values, signed=True)


def test_opacity_is_relative_to_the_limit() -> None:
    opacity = Limits(-2.0, 2.0, "RdBu_r").opacity(np.array([-1.0, 0.0, 1.0, 9.0]))
    np.testing.assert_array_equal(opacity, [0.5, 0.0, 0.5, 1.0])


def test_labels_and_regions_agree_with_the_data_package() -> None:
    assert LABELS == CLASSES
    for region, names in REGIONS.items():
        assert {CLASSES[i] for i in TARGET_CLASSES[region]} == set(names)
    for name in CLASSES[1:]:
        assert TARGET_CLASSES[name] == (CLASSES.index(name),)


def test_label_layer_colors_each_class_and_the_background_is_transparent() -> None:
    layer = label_layer(np.array([[0, 1, 2], [3, 4, 0]], dtype=np.uint8), opacity=0.25)
    assert layer.shape == (2, 3, 4)
    np.testing.assert_array_equal(layer[..., 3] > 0, [[False, True, True], [True, True, False]])
    np.testing.assert_allclose(layer[1, 0], [0xF0 / 255, 0xE4 / 255, 0x42 / 255, 0.25])
    assert len({tuple(color) for color in layer.reshape(-1, 4).tolist()}) == 5


def test_gray_window_of_odd_images() -> None:
    constant = np.full((2, 3, 4), 7.0)
    assert gray_window(constant, 7.0) == (0.0, 1.0)
    assert gray_window(constant, 0.0) == (0.0, 7.0)
    assert gray_window(np.full((2, 3, 4), np.nan), float("nan")) == (0.0, 1.0)
    low, high = gray_window(np.array([-9.0, 1.0, 2.0, np.inf]), -9.0)
    assert low == pytest.approx(1.005)
    assert high == pytest.approx(1.995)
