"""Batches of slices: class balance, reproducibility, geometry."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuroxai.core.errors import TrainingError
from neuroxai.data.preprocessing import Preprocessing
from neuroxai.training.config.augmentation import Augmentation
from neuroxai.training.config.config import Config
from neuroxai.training.config.sources import DataSource, PhantomSource
from neuroxai.training.data.cases import PreparedCase
from neuroxai.training.data.slices import SliceBatches

CPU = torch.device("cpu")
STILL = Augmentation(
    flip=(False, False),
    zoom=(1, 1),
    anisotropy=1,
    rotation=0,
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
CONFIG = Config(
    name="n",
    task="classification",
    architecture="resnet50",
    modalities=("FLAIR",),
    preprocessing=Preprocessing(modalities=("FLAIR",)),
    data=DataSource(phantom=PhantomSource(train=(0, 1), test=(1, 2))),
    classes=("LGG", "HGG"),
    batch=6,
    max_steps=1,
    augmentation=STILL,
)


def _case(grade: int, value: float, slices: int = 2) -> PreparedCase:
    return _with(np.full((slices, 1, 9, 12), value, np.float16), grade)


def _with(images: np.ndarray, grade: int, truth: np.ndarray | None = None) -> PreparedCase:
    return PreparedCase(
        name=f"case-{grade}",
        group="",
        images=images,
        truth=np.zeros(images[:, 0].shape, np.uint8) if truth is None else truth,
        start=(0, 0),
        shape=images.shape[2:],
        counts=(),
        spacing=2.0,
        voxel_mm3=8.0,
        grade=grade,
    )


def test_classes_are_balanced_with_one_case_of_a_class() -> None:
    cases = [_case(0, 1.0), *(_case(1, 2.0 + index) for index in range(7))]
    x, (y, _) = SliceBatches(cases, CONFIG, CPU).batch(0)
    assert y.tolist().count(0) == y.tolist().count(1) == 3
    assert [bool((image == 1).all()) for image in x] == [grade == 0 for grade in y]


def test_batches_depend_only_on_their_number() -> None:
    settings = CONFIG.replace(augmentation=Augmentation(flip=(True, True)))
    cases = [_case(0, 1.0), _case(1, 2.0)]
    one, two = (SliceBatches(cases, settings, CPU) for _ in range(2))
    x, (y, tissue) = two.batch(3)
    again, (again_y, again_tissue) = one.batch(3)
    assert torch.equal(x, again)
    assert torch.equal(y, again_y)
    assert torch.equal(tissue, again_tissue)


def test_flips_are_exact_and_all_four_occur() -> None:
    image = np.arange(108, dtype=np.float16).reshape(1, 1, 9, 12) + 1
    cases = [_with(image, grade) for grade in (0, 1)]
    flipping = STILL.replace(flip=(True, True))
    settings = CONFIG.replace(augmentation=flipping, batch=40)
    x, _ = SliceBatches(cases, settings, CPU).batch(0)
    whole = torch.from_numpy(image[0, 0]).float()
    wanted = {axes: whole.flip(axes) for axes in ((), (0,), (1,), (0, 1))}
    seen = set()
    for sample in x[:, 0]:
        errors = {axes: float((sample - flip).abs().max()) for axes, flip in wanted.items()}
        best = min(errors, key=lambda axes: errors[axes])
        assert errors[best] < 1e-3
        seen.add(best)
    assert seen == set(wanted)


def test_rotation_keeps_shapes_on_rectangular_slices() -> None:
    """A disk keeps its area and equal extents along both axes."""
    a, b = np.meshgrid(np.arange(60) - 29.5, np.arange(90) - 44.5, indexing="ij")
    disk = (np.hypot(a, b) < 20).astype(np.float16)[None, None] + np.float16(0.01)
    cases = [_with(disk, grade) for grade in (0, 1)]
    turning = STILL.replace(rotation=40)
    settings = CONFIG.replace(augmentation=turning, batch=8)
    x, _ = SliceBatches(cases, settings, CPU).batch(0)
    for sample in x[:, 0] > 0.5:
        assert abs(int(sample.any(0).sum()) - int(sample.any(1).sum())) <= 1
        assert int(sample.sum()) == pytest.approx(int((disk > 0.5).sum()), rel=0.02)


def test_a_class_without_cases_raises_an_error() -> None:
    with pytest.raises(TrainingError, match="class LGG has no training case"):
        SliceBatches([_case(1, 1.0)], CONFIG, CPU)


def test_the_first_batches_are_squares_around_the_tumor() -> None:
    image = np.zeros((1, 1, 40, 30), np.float16) + np.float16(0.1)
    image[0, 0, 30:34, 4:8] = 1
    truth = (image[:, 0] == 1).astype(np.uint8) * 3
    cases = [_with(image, grade, truth) for grade in (0, 1)]
    settings = CONFIG.replace(focus_steps=2, focus_size=16)
    batches = SliceBatches(cases, settings, CPU)
    for number in (0, 1):
        x, _ = batches.batch(number)
        assert x.shape == (6, 1, 16, 16)
        assert bool(((x > 0.9).flatten(1).sum(1) == 16).all()), "the square contains the tumor"
    assert batches.batch(2)[0].shape == (6, 1, 40, 30)


def test_tissues_move_with_the_image() -> None:
    rng = np.random.default_rng(0)
    truth = np.kron(rng.integers(0, 4, (1, 6, 5)), np.ones((1, 6, 6))).astype(np.uint8)
    images = (truth[:, None] + 1).astype(np.float16)
    moving = STILL.replace(rotation=30, zoom=(0.8, 1.2), flip=(True, True))
    settings = CONFIG.replace(augmentation=moving, focus_steps=1, focus_size=20)
    batches = SliceBatches([_with(images, grade, truth) for grade in (0, 1)], settings, CPU)
    for number in (0, 1):
        x, (_, tissue) = batches.batch(number)
        assert tissue.shape == (6, 5, *x.shape[2:])
        expected = sum((each + 1) * tissue[:, each] for each in range(5))
        torch.testing.assert_close(x[:, 0], expected, rtol=1e-3, atol=5e-3)
