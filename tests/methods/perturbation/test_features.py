"""Supervoxels and masks of features."""

from __future__ import annotations

import pytest
import torch

from networks import image
from neuroxai.methods.perturbation.features import expected_features, make_features


@pytest.mark.parametrize("dims", [2, 3])
def test_supervoxels_cover_the_brain_and_leave_air_out(dims: int) -> None:
    shape = {2: (40, 30), 3: (20, 24, 16)}[dims]
    x = torch.zeros(2, 3, *shape)
    inside = (slice(4, -4),) * dims
    x[(slice(None), slice(None), *inside)] = 1 + 0.1 * torch.rand(
        2, 3, *[n - 8 for n in shape], generator=torch.Generator().manual_seed(0)
    )
    found = make_features("supervoxels", x, 12)
    brain = torch.zeros(shape, dtype=torch.bool)
    brain[inside] = True
    for labels, count in zip(found.labels[:, 0], found.counts, strict=True):
        assert bool((labels[brain] > 0).all())
        assert not bool(labels[~brain].any())
        assert 6 <= count <= 24
        assert labels.unique().tolist() == list(range(count + 1))


def test_supervoxels_follow_an_edge() -> None:
    """Two halves of different brightness share no supervoxel."""
    x = torch.ones(1, 1, 24, 20)
    x[..., 10:] = 5.0
    labels = make_features("supervoxels", x, 8).labels[0, 0]
    left, right = set(labels[:, :10].unique().tolist()), set(labels[:, 10:].unique().tolist())
    assert not left & right


def test_a_mask_keeps_the_present_features_and_the_rest() -> None:
    x = image(2)
    labels = torch.randint(0, 5, (10, 14), generator=torch.Generator().manual_seed(1))
    found = make_features(labels, x, 1)
    presence = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).float()
    kept = found.kept(presence)
    assert kept.shape == (3, 1, 10, 14)
    for b in range(3):
        for k in range(1, 5):
            assert bool((kept[b, 0][labels == k] == presence[b, k - 1]).all())
        assert bool((kept[b, 0][labels == 0] == 1).all())


def test_the_features_of_an_input_without_space_are_its_channels() -> None:
    x = torch.rand(2, 5, 1, 1)
    found = make_features("supervoxels", x, 50)
    assert found.counts == (5, 5)
    assert expected_features("supervoxels", 50, False, x) == 5
    presence = torch.tensor([[1, 0, 1, 1, 0]]).float().expand(2, 5)
    assert torch.equal(found.kept(presence)[:, :, 0, 0], presence)
