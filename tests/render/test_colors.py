"""Colors: limits against a percentile by hand, labels against the order in the data package."""

from __future__ import annotations

import numpy as np
import pytest

from neuroxai.data.case import CLASSES, REGIONS
from neuroxai.render.colors import (
    COLORS,
    LABELS,
    PREDICTION_LINE,
    TARGET_CLASSES,
    TRUTH_LINE,
    WITHIN_LINE,
    Kind,
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
    limits = color_limits(values, "signed")
    assert limits.vmax == pytest.approx(percentile_by_hand(values, 99.5), rel=1e-12)
    assert limits.vmin == -limits.vmax
    assert limits.kind == "signed"


@pytest.mark.parametrize("kind", ["evidence", "magnitude", "activation"])
def test_unsigned_limits_start_at_zero(kind: Kind) -> None:
    values = np.random.default_rng(0).random((5, 7))
    limits = color_limits(values, kind)
    assert (limits.vmin, limits.kind) == (0.0, kind)
    assert limits.vmax == pytest.approx(percentile_by_hand(values, 99.5))


@pytest.mark.parametrize("kind", ["evidence", "magnitude"])
def test_negative_values_of_an_unsigned_method_are_shown(kind: Kind) -> None:
    assert color_limits(np.array([-1.0, 2.0]), kind)[0] < 0
    assert color_limits(np.array([-1.0, 2.0]), kind).kind == "signed"


def test_a_sparse_map_takes_its_largest_value() -> None:
    values = np.zeros(10_000)
    values[17] = -3.0
    assert color_limits(values, "signed") == Limits(-3.0, 3.0, "signed")


@pytest.mark.parametrize("values", [np.zeros((3, 2)), np.empty(0), np.array([np.nan, 1.0])])
def test_maps_without_a_color_scale_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no color scale"):
        color_limits(values, "signed")


def test_opacity_is_relative_to_the_limit() -> None:
    opacity = Limits(-2.0, 2.0, "signed").opacity(np.array([-1.0, 0.0, 1.0, 9.0]))
    np.testing.assert_array_equal(opacity, [0.5, 0.0, 0.5, 1.0])


def test_red_is_for_the_target_and_blue_against_and_nothing_else_is_red_or_blue() -> None:
    values = np.array([[3.0, 1.0, -1.0, -3.0]])
    evidence: tuple[Kind, ...] = ("signed", "evidence")
    for kind in evidence:
        red, green, blue, _ = np.moveaxis(Limits(-2.0, 2.0, kind).rgba(values), -1, 0)
        np.testing.assert_array_equal(red[0] > blue[0], [True, True, False, False])
        assert (np.maximum(red, blue) > 1.8 * green).all()
    others: tuple[Kind, ...] = ("magnitude", "activation")
    for kind in others:
        for color in COLORS[kind]:
            red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
            # Neither of two primaries dominates both others, as in red and in blue.
            assert not red > 1.8 * max(green, blue)
            assert not blue > 1.8 * max(red, green)
    for color in (PREDICTION_LINE, TRUTH_LINE, WITHIN_LINE):
        assert all(color not in pair for pair in COLORS.values())


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
