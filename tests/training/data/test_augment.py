"""Intensity augmentation: background, monotonicity, each step against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuroxai.training.config.augmentation import Augmentation
from neuroxai.training.data.augment import augment_intensity

OFF = Augmentation(
    tone=0,
    gamma=(1, 1),
    contrast=(1, 1),
    brightness=0,
    bias=0,
    noise=0,
    blur=0,
    thick_slices=0,
    ceiling=(1, 1),
)


def _batch(*shape: int) -> torch.Tensor:
    x = torch.rand(*shape, generator=torch.Generator().manual_seed(0)) + 0.05
    x[:, :, :2] = 0
    return x


@pytest.mark.parametrize("shape", [(2, 4, 8, 7, 6), (3, 1, 9, 12)])
def test_the_background_stays_zero_and_all_values_are_finite(shape: tuple[int, ...]) -> None:
    x = _batch(*shape)
    for seed in range(20):
        y = augment_intensity(x, np.random.default_rng(seed), Augmentation())
        assert bool((y[:, :, :2] == 0).all())
        assert bool(torch.isfinite(y).all())
        assert y.shape == x.shape


def test_the_result_depends_only_on_the_generator() -> None:
    x = _batch(2, 3, 8, 7, 6)
    one = augment_intensity(x, np.random.default_rng(5), Augmentation())
    torch.manual_seed(99)
    assert torch.equal(one, augment_intensity(x, np.random.default_rng(5), Augmentation()))
    assert not torch.equal(one, augment_intensity(x, np.random.default_rng(6), Augmentation()))


def test_all_steps_off_change_nothing() -> None:
    x = _batch(2, 3, 8, 7, 6)
    torch.testing.assert_close(augment_intensity(x, np.random.default_rng(0), OFF), x)


def test_tone_curves_are_monotonic() -> None:
    x = torch.linspace(0.01, 3, 500).reshape(1, 1, 500, 1)
    settings = OFF.replace(tone=0.45, gamma=(0.5, 2), contrast=(0.5, 2), brightness=1)
    for seed in range(50):
        y = augment_intensity(x, np.random.default_rng(seed), settings)
        assert bool((y.diff(dim=2) > -1e-6).all())


def test_half_of_the_images_are_darkened_towards_their_minimum() -> None:
    x = _batch(40, 3, 6, 5)
    y = augment_intensity(x, np.random.default_rng(3), OFF.replace(ceiling=(0.5, 0.5)))
    low = torch.where(x > 0, x, torch.inf).amin((2, 3), keepdim=True)
    dimmed = torch.where(x > 0, low + 0.5 * (x - low), 0)
    same = torch.isclose(y, x, atol=1e-6).all(-1).all(-1)
    half = torch.isclose(y, dimmed, atol=1e-6).all(-1).all(-1)
    assert bool((same ^ half).all())
    assert 40 < int(half.sum()) < 80


def test_blur_equals_a_direct_sum() -> None:
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 4], x[0, 0, 0, 0] = 1, 1e-9
    x += 1e-9
    for seed in range(30):
        y = augment_intensity(x, np.random.default_rng(seed), OFF.replace(blur=1.2))
        profile = y[0, 0, 4].numpy()
        if profile[3] > 1e-3:
            width = np.sqrt(-0.5 / np.log(profile[3] / profile[4]))
            taps = np.exp(-0.5 * (np.arange(-2, 3) / width) ** 2)
            taps /= taps.sum()
            np.testing.assert_allclose(
                y[0, 0, 2:7, 2:7].numpy(), np.outer(taps, taps), rtol=1e-4, atol=1e-6
            )
            return
    pytest.fail("no seed applied the blur")


def test_empty_and_constant_images_stay_finite() -> None:
    for x in (torch.zeros(2, 2, 6, 5, 4), torch.full((2, 2, 6, 5, 4), 3.0)):
        y = augment_intensity(x, np.random.default_rng(1), Augmentation())
        assert bool(torch.isfinite(y).all())
    assert not augment_intensity(torch.zeros(1, 1, 5, 4), np.random.default_rng(1), OFF).any()
