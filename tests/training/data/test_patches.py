"""Batches of patches: interpolation against SciPy, reproducibility, sampling."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from neuroxai.training.config.augmentation import Augmentation
from neuroxai.training.config.config import Config
from neuroxai.training.config.sources import DataSource, PhantomSource
from neuroxai.training.data.cases import PreparedCase
from neuroxai.training.data.patches import PatchBatches, random_affine

PLAIN = {
    "flip": (False, False, False),
    "zoom": (1, 1),
    "anisotropy": 1,
    "rotation": 0,
    "tone": 0,
    "gamma": (1, 1),
    "contrast": (1, 1),
    "brightness": 0,
    "bias": 0,
    "noise": 0,
    "blur": 0,
    "thick_slices": 0,
    "ceiling": (1, 1),
}


def case(
    seed: int = 0, shape: tuple[int, int, int] = (18, 21, 16), lesion: int = 3
) -> PreparedCase:
    """Smooth random images with one lesion of all three classes."""
    rng = np.random.default_rng(seed)
    images = ndimage.gaussian_filter(rng.random((2, *shape)), (0, 1, 1, 1)) + 0.1
    truth = np.zeros(shape, np.uint8)
    truth[4 : 4 + lesion, 5 : 5 + lesion, 6 : 6 + lesion] = 2
    truth[5, 6, 7], truth[5, 6, 8] = 1, 3
    counts = np.bincount(truth.ravel(), minlength=5).tolist()
    return PreparedCase(
        name=f"case-{seed}",
        group=f"case-{seed}",
        images=images.astype(np.float16),
        truth=truth,
        start=(1, 2, 0),
        shape=(20, 25, 16),
        counts=tuple(counts),
        spacing=1.0,
        voxel_mm3=1.0,
    )


def config(augmentation: Augmentation, **changes: object) -> Config:
    settings: dict[str, object] = {
        "name": "n",
        "task": "segmentation",
        "architecture": "deepseg",
        "modalities": ("T1", "FLAIR"),
        "preprocessing": {"modalities": ["T1", "FLAIR"]},
        "data": DataSource(phantom=PhantomSource(train=(0, 1), test=(1, 2))),
        "patch": (8, 10, 6),
        "batch": 3,
        "max_steps": 2,
        "augmentation": augmentation,
    }
    return Config(**(settings | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(6))
def test_a_patch_equals_scipys_affine_interpolation(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = {"rotation": 25, "zoom": (0.7, 1.4), "anisotropy": 1.2, "flip": (True, True, True)}
    settings = Augmentation(**(PLAIN | turned))  # type: ignore[arg-type]
    source = case(seed)
    batches = PatchBatches([source], config(settings, batch=1, seed=seed), torch.device("cpu"))
    centers: list[tuple[np.ndarray, np.ndarray]] = []
    from neuroxai.training.data import patches

    real = patches._sampling_grid

    def spy(matrix, center, size, patch, device):  # type: ignore[no-untyped-def]
        centers.append((matrix, center))
        return real(matrix, center, size, patch, device)

    monkeypatch.setattr(patches, "_sampling_grid", spy)
    low: list[np.ndarray] = []
    crop = PatchBatches._crop

    def spy_crop(self, index, first, last):  # type: ignore[no-untyped-def]
        low.append(first)
        return crop(self, index, first, last)

    monkeypatch.setattr(PatchBatches, "_crop", spy_crop)
    x, y = batches.batch(seed)
    matrix, center = centers[0]
    patch = np.array([8, 10, 6])
    offsets = np.stack(np.meshgrid(*map(np.arange, patch), indexing="ij")).reshape(3, -1)
    points = matrix @ (offsets - (patch[:, None] - 1) / 2) + (center + low[0])[:, None]
    for channel in range(2):
        expected = ndimage.map_coordinates(
            np.pad(source.images[channel].astype(np.float64), 2), points + 2, order=1
        ).reshape(patch)
        np.testing.assert_allclose(x[0, channel].numpy(), expected, atol=2e-3)
    rounded = np.rint(points).astype(int)
    inside = ((rounded >= 0) & (rounded < np.array([[18], [21], [16]]))).all(axis=0)
    expected_truth = np.zeros(rounded.shape[1], int)
    expected_truth[inside] = source.truth[tuple(rounded[:, inside])]
    disagree = (y[0].numpy().ravel() != expected_truth).mean()
    assert disagree < 0.01, "only ties of rounding may differ"


def test_batches_depend_only_on_their_number() -> None:
    settings = config(Augmentation())
    cases = [case(seed) for seed in range(3)]
    one = PatchBatches(cases, settings, torch.device("cpu"))
    other = PatchBatches(cases, settings, torch.device("cpu"))
    torch.manual_seed(3)
    for number in (4, 5):
        x, y = other.batch(number)
        again_x, again_y = one.batch(number)
        assert torch.equal(x, again_x)
        assert torch.equal(y, again_y)
        assert x.shape == (3, 2, 8, 10, 6)
        assert y.shape == (3, 8, 10, 6)
    assert not torch.equal(one.batch(4)[0], one.batch(5)[0])


def test_tumor_patches_contain_tumor() -> None:
    settings = config(Augmentation(**PLAIN), tumor_fraction=1.0, batch=40)  # type: ignore[arg-type]
    _, y = PatchBatches([case()], settings, torch.device("cpu")).batch(0)
    assert bool((y > 0).flatten(1).any(1).all())


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_the_patch_is_inside_the_volume_or_contains_it(fraction: float) -> None:
    source = case()  # above 0 everywhere
    plain = Augmentation(**PLAIN)  # type: ignore[arg-type]
    settings = config(plain, tumor_fraction=fraction, batch=40)
    small, _ = PatchBatches([source], settings, torch.device("cpu")).batch(0)
    assert bool((small > 0).all())
    settings = config(plain, tumor_fraction=fraction, batch=40, patch=(24, 12, 20))
    mixed, _ = PatchBatches([source], settings, torch.device("cpu")).batch(0)
    there = mixed[:, 0] > 0
    for sample in there:
        extents = [int(sample.any(dim=across).sum()) for across in ((1, 2), (0, 2), (0, 1))]
        # Voxels on the border are interpolated with the background.
        assert extents[1] == 12
        assert 18 <= extents[0] <= 19
        assert 16 <= extents[2] <= 17
    assert len({tuple(sample.nonzero()[0].tolist()) for sample in there}) > 10, (
        "at random positions"
    )


def test_classes_without_output_channel_become_background() -> None:
    settings = config(
        Augmentation(**PLAIN),  # type: ignore[arg-type]
        tumor_fraction=1.0,
        batch=30,
        classes=("background", "ET"),
    )
    _, y = PatchBatches([case()], settings, torch.device("cpu")).batch(0)
    assert set(y.unique().tolist()) == {0, 1}
    assert int(y.flatten(1).sum(1).max()) == 1, "one voxel of the case is ET"


def test_every_flip_occurs_and_cases_without_tumor_are_sampled() -> None:
    rng = np.random.default_rng(0)
    signs = {
        tuple(np.sign(np.diag(random_affine(rng, Augmentation(rotation=0))))) for _ in range(99)
    }
    assert signs == set(itertools.product((-1.0, 1.0), repeat=3))
    empty = case(lesion=0)
    empty.truth[...] = 0
    x, y = PatchBatches([empty], config(Augmentation()), torch.device("cpu")).batch(0)
    assert not y.any()
    assert bool(torch.isfinite(x).all())
