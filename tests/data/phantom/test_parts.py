"""Components of phantoms against closed forms and slow re-implementations."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from neuroxai.data.case import MODALITIES
from neuroxai.data.phantom.anatomy import Tissues, draw_warp
from neuroxai.data.phantom.artifacts import Scanner, acquire, blur_image, draw_scanners
from neuroxai.data.phantom.contrast import (
    DARKER_THAN_EDEMA,
    RATIOS,
    WHITE,
    Scene,
    add_texture,
    draw_signals,
)
from neuroxai.data.phantom.diffusion import Diffusion
from neuroxai.data.phantom.field import Field, lattice, ramp, smooth_noise, stream
from neuroxai.data.phantom.make import grid as make_grid
from neuroxai.data.phantom.tumor import Tumor, draw_plan, grow

PLAIN = Scanner(0.0, 0.0, 2, 0.0, 1.0, 0.0, 0.0, 0.05, 1e5)


def test_interpolation_is_scipys() -> None:
    from scipy.ndimage import map_coordinates

    rng = np.random.default_rng(0)
    data = rng.normal(size=(5, 7, 6)).astype(np.float32)
    field = Field(data, (-3.0, 1.0, 2.0), 1.5)
    x, y, z = (np.linspace(a, b, n).astype(np.float32) for a, b, n in
               ((-5, 6, 9), (0, 12, 4), (1, 11, 11)))  # fmt: skip
    places = np.stack(np.meshgrid((x + 3) / 1.5, (y - 1) / 1.5, (z - 2) / 1.5, indexing="ij"))
    expected = map_coordinates(data, places, order=1, mode="nearest")
    np.testing.assert_allclose(field.on((x, y, z)), expected, atol=1e-5)


def test_noise_is_standardized_with_the_requested_smoothness() -> None:
    for sigma in (3.0, 12.0):
        noise = smooth_noise(stream(4, "test"), sigma)
        axes, _ = lattice(noise.pitch)
        assert noise.data.shape == tuple(axis.size for axis in axes)
        assert abs(noise.data.mean()) < 1e-5
        assert noise.data.std() == pytest.approx(1, abs=1e-5)
        # Gaussian-smoothed white noise correlates as exp(-d²/4σ²).
        step = max(1, round(sigma / noise.pitch))
        got = float((noise.data[step:] * noise.data[:-step]).mean())
        assert got == pytest.approx(np.exp(-((step * noise.pitch / sigma) ** 2) / 4), abs=0.12)


def test_ramp_reaches_its_ends_exactly() -> None:
    values = ramp(np.array([-3.0, -1.0, 0.0, 1.0, 3.0], dtype=np.float32), 1.0)
    np.testing.assert_array_equal(values, [0, 0, 0.5, 1, 1])


def test_a_slow_tumor_reaches_its_planned_volume_too() -> None:
    """Seed 545 needs 1,243 steps; stopped early, it had no core."""
    plan = draw_plan(545, "HGG")
    growth = grow(545, plan, draw_warp(545)[0])
    assert plan.volume <= growth.volume < 1.05 * plan.volume


def test_diffusion_equals_a_slow_sum_over_neighbors_and_conserves_mass() -> None:
    rng = np.random.default_rng(1)
    shape = (4, 6, 5)
    density = rng.random(shape).astype(np.float32)
    diffusion = rng.random(shape).astype(np.float32)
    diffusion[1] = 0
    expected = np.zeros(shape)
    for cell in itertools.product(*map(range, shape)):
        for axis, way in itertools.product(range(3), (-1, 1)):
            other = list(cell)
            other[axis] += way
            if not 0 <= other[axis] < shape[axis]:
                continue
            a, b = float(diffusion[cell]), float(diffusion[tuple(other)])
            shared = 2 * a * b / (a + b) if a and b else 0.0
            expected[cell] += shared * float(density[tuple(other)] - density[cell])
    flow = Diffusion(diffusion).flow(density)
    np.testing.assert_allclose(flow, expected, atol=1e-6)
    assert abs(float(flow.sum())) < 1e-5
    assert not flow[1].any()


def test_growth_front_moves_at_the_fisher_speed() -> None:
    """A front in a homogeneous medium approaches 2 sqrt(D rho) from below."""
    diffusion, rate, step = 1.0, 0.1, 0.15
    density = np.zeros((300, 2, 2), dtype=np.float32)
    density[:5] = 1
    spread = Diffusion(np.full(density.shape, diffusion * step, dtype=np.float32))
    fronts = []
    for turn in range(2001):
        if turn % 1000 == 0:
            fronts.append(float((density[:, 0, 0] > 0.5).sum()))
        density += spread.flow(density) + np.float32(step * rate) * density * (1 - density)
    speed = (fronts[2] - fronts[1]) / (1000 * step)
    assert speed == pytest.approx(2 * np.sqrt(diffusion * rate), rel=0.06)


@pytest.mark.parametrize("level", [0.0, 0.1, 0.6])
def test_noise_is_rician(level: float) -> None:
    """The second moment of a Rician variable is A² + 2σ²; at A = 0 it is Rayleigh distributed."""
    image = np.full((24, 22, 26), level, dtype=np.float32)
    brain = np.ones(image.shape, dtype=bool)
    axes, _ = lattice(8.0)
    x, y, z = (axis[:n] for axis, n in zip(axes, image.shape, strict=True))
    made = acquire(3, "T1", image, PLAIN, brain, (x, y, z)) / PLAIN.scale
    assert (made**2).mean() == pytest.approx(level**2 + 2 * 0.05**2, rel=0.03)
    if level == 0:
        assert made.mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.02)


def test_images_are_zero_outside_the_brain() -> None:
    image = np.ones((9, 8, 7), dtype=np.float32)
    brain = np.zeros(image.shape, dtype=bool)
    brain[2:5, 3:6, 1:4] = True
    axes, _ = lattice(20.0)
    x, y, z = (axis[:n] for axis, n in zip(axes, image.shape, strict=True))
    made = acquire(1, "T2", image * 0, replace(PLAIN, bias=0.2), brain, (x, y, z))
    np.testing.assert_array_equal(made > 0, brain)


def test_blur_preserves_the_sum_and_thick_slices_blur_one_axis() -> None:
    image = np.zeros((21, 23, 25), dtype=np.float32)
    image[10, 11, 12] = 1
    thick = blur_image(image, replace(PLAIN, slice_mm=4.0), 1.0)
    assert thick.sum() == pytest.approx(1, abs=1e-5)
    assert np.count_nonzero(thick) == np.count_nonzero(thick[10, 11]) > 3
    blurred = blur_image(image, replace(PLAIN, blur=0.9), 1.0)
    assert blurred.sum() == pytest.approx(1, abs=1e-4)
    assert blurred[10, 11, 12] < 0.5
    ringing = blur_image(image + 1, replace(PLAIN, ringing=0.4), 1.0)
    assert ringing.min() < 1 < ringing.max() < 2


def test_signals_stay_within_their_ranges_and_vary() -> None:
    drawn = [draw_signals(seed) for seed in range(40)]
    for modality, tissues in RATIOS.items():
        for tissue, (low, high) in tissues.items():
            dark = tissue in DARKER_THAN_EDEMA.get(modality, ())
            ratios = [
                signals[modality][tissue] / (signals[modality]["ED"] if dark else WHITE[modality])
                for signals in drawn
            ]
            assert low - 1e-9 <= min(ratios) < low + 0.2 * (high - low)
            assert high - 0.2 * (high - low) < max(ratios) <= high + 1e-9


def test_a_core_is_always_darker_than_its_edema_on_t1() -> None:
    for seed in range(200):
        signals = draw_signals(seed)
        for modality in ("T1", "T1ce"):
            edema = signals[modality]["ED"]
            assert all(signals[modality][core] < 0.93 * edema for core in ("NCR", "NET"))


def test_texture_does_not_look_like_enhancement() -> None:
    """T1ce and T1 have the same texture in the core; other contrasts have their own."""
    shape, _, axes = make_grid(3.0)
    half, none = np.full(shape, 0.5, np.float32), np.zeros(shape, np.float32)
    tumor = Tumor(half, half, none, none, none)
    box = (slice(None), slice(None), slice(None))
    tissues = Tissues(none, none, none, none, none)
    scene = Scene(tissues, half > 0, none, none, none, {}, tumor, box)
    most = []
    for seed in range(8):
        images = {name: np.ones(shape, np.float32) for name in MODALITIES}
        add_texture(seed, images, scene, axes)
        share = images["T1ce"] / images["T1"]
        assert share.std() < 0.06
        assert share.max() < 1.35
        most.append((images["T2"] / images["T1"]).std())
    assert max(most) > 0.15


def test_flat_bias_scales_the_bias_field_only() -> None:
    for seed in range(5):
        wild, flat = draw_scanners(seed), draw_scanners(seed, flat_bias=True)
        for name, scanner in wild.items():
            assert flat[name] == replace(scanner, bias=scanner.bias * 0.2)
