"""Chance level of a share in a place, against loops over positions and maps planted by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from neuroxai.core.errors import MethodError
from neuroxai.inspection.chance import Chance, ChanceLevel

SHAPE = (22, 27, 19)
AIR = (-1.5, 0.0)
NAMES = ("FLAIR", "T1ce")


def head(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return place, brain and scan: an ellipsoid with a tumor that is bright on FLAIR."""
    grid = np.indices(SHAPE).astype(float)
    center = (np.array(SHAPE)[:, None, None, None] - 1) / 2
    half = np.array([9.5, 11.5, 8.5])[:, None, None, None]
    brain = (((grid - center) / half) ** 2).sum(axis=0) <= 1
    place = np.zeros(SHAPE, bool)
    place[5:9, 9:14, 8:11] = True
    place[6:8, 10:12, 9] = False  # a hole, so that the shape is not a box
    noise = np.random.default_rng(seed).normal(size=(2, *SHAPE))
    scan = np.stack([100 + 8 * noise[0] + 90 * place, 100 + 8 * noise[1]]) * brain
    scan += np.array(AIR)[:, None, None, None]
    return torch.from_numpy(place), torch.from_numpy(brain), torch.from_numpy(scan).float()


def level_of(place: Tensor, brain: Tensor, scan: Tensor) -> ChanceLevel:
    return ChanceLevel(place, brain, scan, NAMES, AIR)


def slow(values: NDArray[np.float64], place: NDArray[np.bool_], brain: NDArray[np.bool_]) -> Chance:
    """Shift the place voxel by voxel, and compare with the maps of a scan without signal."""
    mass = abs(values).sum(axis=0)
    offsets = np.argwhere(place)
    own = brain[place].mean()
    held = []
    for shift in itertools.product(*(range(-n, n) for n in place.shape)):
        moved = offsets + shift
        if (moved < 0).any() or (moved >= place.shape).any():
            continue
        index = tuple(moved.T)
        if brain[index].mean() < min(own, 0.95) or place[index].mean() > 0.1:
            continue
        held.append(mass[index].sum())
    here = mass[place].sum()
    as_much = float(np.mean([each >= here * (1 - 1e-9) for each in held]))
    share, level = here / mass.sum(), (brain & place).sum() / brain.sum()
    above = share > 1.1 * level and as_much <= 0.05
    return Chance(share, level, "uniform in the brain", len(held), as_much, above)


@pytest.mark.parametrize("seed", range(4))
def test_positions_and_shares_equal_those_of_a_loop(seed: int) -> None:
    place, brain, scan = head()
    empty = torch.zeros_like(scan) + torch.tensor(AIR)[:, None, None, None]
    smooth = np.random.default_rng(seed).normal(size=(2, *SHAPE))
    drawn = ndimage.gaussian_filter(smooth, (0, 2, 2, 2))
    expected = slow(drawn, place.numpy(), brain.numpy())
    assert expected.positions > 100
    found = level_of(place, brain, empty).compare(torch.from_numpy(drawn))
    assert found is not None
    assert found.positions == expected.positions
    assert found.as_much == pytest.approx(expected.as_much, abs=1e-9)
    assert found.share == pytest.approx(expected.share, rel=1e-6)
    assert found.level == pytest.approx(expected.level, rel=1e-9)
    assert (found.reference, found.above) == (expected.reference, expected.above)


def planted() -> dict[str, tuple[Tensor, bool]]:
    """Return maps by name, and whether they are above chance."""
    place, brain, scan = head()
    signal = scan.double() - torch.tensor(AIR)[:, None, None, None]
    steps = [np.stack(np.gradient(each.numpy())) for each in signal]
    edges = torch.from_numpy(np.stack([np.linalg.norm(each, axis=0) for each in steps]))
    noise = torch.randn(2, *SHAPE, generator=torch.manual_seed(3))
    mirrored = place.flip(0)
    assert not bool((mirrored & place).any())
    return {
        "uniform over the volume": (torch.ones(2, *SHAPE), False),
        "brain mask": (brain[None].double(), False),
        "brightness": (signal, False),
        "brightness of FLAIR against T1ce": (signal * torch.tensor([1, -1])[:, None, None, None],
                                             False),
        "brightness of FLAIR alone": (signal[:1], False),
        "edges": (edges, False),
        "noise": (noise, False),
        "the other side": (mirrored[None].double() + 0.001, False),
        "air": ((~brain)[None].double() + 0.01, False),
        "where the target is": (place[None] * signal, True),
        "half of it": (place[None] * signal + 0.5 * brain * abs(noise), True),
    }  # fmt: skip


@pytest.mark.parametrize("name", planted())
def test_planted_maps(name: str) -> None:
    values, expected = planted()[name]
    found = level_of(*head()).compare(values)
    assert found is not None
    assert found.above is expected, found
    assert found.reference == "brightness of FLAIR"
    signal = np.abs(head()[2][0].double().numpy() - AIR[0])
    assert found.level == pytest.approx(signal[head()[0].numpy()].sum() / signal.sum())


def test_blobs_in_random_places_are_rarely_above_chance() -> None:
    place, brain, scan = head()
    level = level_of(place, brain, scan)
    rng = np.random.default_rng(11)
    found = []
    for _ in range(200):
        map_ = ndimage.gaussian_filter(rng.normal(size=SHAPE), 2.5) ** 4 * brain.numpy()
        one = level.compare(torch.from_numpy(map_)[None])
        assert one is not None
        found.append(one)
    beyond = np.mean([each.share > 1.1 * each.level for each in found])
    above = np.mean([each.above for each in found])
    assert beyond > 0.1, "the level alone is passed by luck"
    assert above <= 0.1  # 5 % expected; 200 maps give at most 8.5 % with probability 0.99


def test_a_place_as_large_as_the_brain_has_too_few_other_positions() -> None:
    _, brain, scan = head()
    large = torch.from_numpy(ndimage.binary_erosion(brain.numpy(), iterations=2))
    found = level_of(large, brain, scan).compare(large[None].double())
    assert found is not None
    assert (found.positions, found.as_much, found.above) == (0, None, True)
    same = level_of(large, brain, scan).compare(brain[None].double())
    assert same is not None
    assert not same.above


def test_a_slice() -> None:
    place, brain, scan = (each[..., 9] for each in head())
    level = level_of(place, brain, scan)
    right, whole = (level.compare(mask[None].double()) for mask in (place, brain))
    assert right is not None
    assert whole is not None
    assert (right.above, whole.above) == (True, False)


def test_no_answer_without_a_map_or_a_place() -> None:
    place, brain, scan = head()
    level = level_of(place, brain, scan)
    assert level.compare(torch.zeros(2, *SHAPE)) is None
    assert level.compare(torch.full((2, *SHAPE), torch.nan)) is None
    assert level_of(torch.zeros_like(place), brain, scan).compare(torch.ones(1, *SHAPE)) is None


def test_other_shapes_are_refused() -> None:
    place, brain, scan = head()
    with pytest.raises(MethodError, match="expected those of the place"):
        ChanceLevel(place, brain[1:], scan, NAMES, AIR)
    with pytest.raises(MethodError, match="one a channel"):
        ChanceLevel(place, brain, scan, NAMES[:1], AIR)
