"""Steps of the augmentation against MONAI's transforms of the same kind.

python benchmarks/augmentation.py
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import monai.transforms as mt
import numpy as np
import torch
from measure import Row, Table, interleave, median
from torch import Tensor

from neuroxai import tune_allocator
from neuroxai.training.config.augmentation import Augmentation
from neuroxai.training.data import augment

SHAPE, ROUNDS = (3, 4, 64, 96, 64), 60
"""A batch of three patches with four modalities, as in benchmarks/training.py."""

Step = Callable[[Tensor], object]
SETTINGS = Augmentation()


def main() -> None:
    """Measure and write."""
    warnings.filterwarnings("ignore")
    tune_allocator()
    table = Table("augmentation")
    batch = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))
    for name, (ours, theirs, transform) in _steps().items():
        works = {"ours": partial(_whole, ours, batch), "theirs": partial(_each, theirs, batch)}
        times = interleave(works, ROUNDS)
        ours_ms, theirs_ms = (1000 * median(times[key]) for key in ("ours", "theirs"))
        table.add(Row(name, f"MONAI's {transform}", ours_ms, theirs_ms, unit="ms",
                      detail=f"{ROUNDS} rounds"))  # fmt: skip
    table.write()


def _steps() -> dict[str, tuple[Step, Step, str]]:
    """Return, by name, our step on a batch, MONAI's on an image, and the name of the latter."""
    rng = np.random.default_rng(0)
    return {
        "monotonic tone curve": (
            lambda y: augment._tone_curve(y, rng, SETTINGS.tone),
            mt.RandHistogramShift(num_control_points=5, prob=0.5), "RandHistogramShift",
        ),
        "gamma": (
            lambda y: augment._gamma(y, rng, SETTINGS.gamma),
            mt.RandAdjustContrast(prob=0.5, gamma=SETTINGS.gamma), "RandAdjustContrast",
        ),
        "contrast": (
            lambda y: augment._contrast(y, rng, SETTINGS.contrast),
            mt.RandScaleIntensity(factors=0.3, prob=0.5), "RandScaleIntensity",
        ),
        "brightness": (
            lambda y: augment._brightness(y, rng, SETTINGS.brightness),
            mt.RandShiftIntensity(offsets=0.1, prob=0.5), "RandShiftIntensity",
        ),
        "smooth field": (
            lambda y: augment._smooth_field(y, rng, SETTINGS.bias),
            mt.RandBiasField(prob=0.5, coeff_range=(0.0, 0.25)), "RandBiasField",
        ),
        "blur": (
            lambda y: augment._blur(y, rng, SETTINGS.blur),
            mt.RandGaussianSmooth(*((0.2, 0.9),) * 3, prob=0.5), "RandGaussianSmooth",
        ),
        "low resolution": (
            lambda y: augment._low_resolution(y, rng, 0.5),
            mt.RandSimulateLowResolution(prob=0.5, zoom_range=(0.33, 0.5)),
            "RandSimulateLowResolution, which reduces all axes",
        ),
        "noise": (
            lambda y: augment._noise(y, rng, SETTINGS.noise, 3),
            mt.RandGaussianNoise(prob=0.5, std=0.06), "RandGaussianNoise",
        ),
    }  # fmt: skip


def _whole(step: Step, batch: Tensor) -> None:
    """Apply a step to a whole batch."""
    step(batch.clone())


def _each(transform: Step, batch: Tensor) -> None:
    """Apply a transform to every image of a batch separately."""
    for sample in batch:
        for channel in sample:
            transform(channel[None].clone())


if __name__ == "__main__":
    main()
