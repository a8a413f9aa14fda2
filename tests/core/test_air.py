"""The value of air on the scale of each scan."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from neuroxai.core.air import air_value, corner_value, foreground

SHAPES = {2: (40, 33), 3: (24, 20, 17)}
DIMS = pytest.mark.parametrize("dims", [2, 3])


def head(dims: int, air: float, low: float, high: float) -> tuple[Tensor, Tensor]:
    """An ellipsoid of random tissue from low to high in air, ``(1, 1, *S)``, and its mask."""
    axes = [torch.linspace(-1, 1, n, dtype=torch.float64) for n in SHAPES[dims]]
    radius = sum(g**2 for g in torch.meshgrid(*axes, indexing="ij"))
    inside = torch.as_tensor(radius < 0.6)
    tissue = torch.rand(inside.shape, generator=torch.Generator().manual_seed(0)).double()
    return torch.where(inside, low + (high - low) * tissue, air)[None, None], inside


@DIMS
@pytest.mark.parametrize("air", [0.0, -1024.0, -1.7], ids=["mr", "ct", "zscored"])
def test_air_is_the_value_around_the_head(dims: int, air: float) -> None:
    x, inside = head(dims, air, air + 1.0, air + 2000.0)
    middle = tuple(n // 2 for n in SHAPES[dims])
    x[(0, 0, *middle)] = -50000.0  # one faulty voxel, darker than air
    assert float(air_value(x)) == air
    got = foreground(head(dims, air, air + 100.0, air + 2000.0)[0])[0, 0]
    assert torch.equal(got, inside)


@DIMS
def test_noise_in_air_does_not_make_it_darker(dims: int) -> None:
    x, inside = head(dims, 0.0, 200.0, 2000.0)
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)).double() * 10
    x = torch.where(inside, x, noise)
    assert float(air_value(x)) == pytest.approx(float(corner_value(x)))
    assert 2.0 < float(air_value(x)) < 8.0


@DIMS
def test_a_filled_background_is_not_black(dims: int) -> None:
    """After a z-score within the brain, 0 around it is the mean brain, so dark tissue counts."""
    x, inside = head(dims, 0.0, -3.0, 3.0)
    tissue = x[0, 0][inside].numpy()
    tissue = tissue[np.abs(tissue) > 0.02 * 6.0]
    assert float(air_value(x)) == pytest.approx(np.percentile(tissue, 1), abs=0.05)
    middle = tuple(n // 2 for n in SHAPES[dims])
    x[(0, 0, *middle)] = -80.0
    assert float(air_value(x)) == pytest.approx(np.percentile(tissue, 1), abs=0.05)


@DIMS
def test_without_air_no_signal_is_black(dims: int) -> None:
    x = torch.rand(2, 3, *SHAPES[dims], generator=torch.Generator().manual_seed(2)) + 0.5
    assert air_value(x).tolist() == [[0.0] * 3] * 2


def test_every_channel_has_its_own_air() -> None:
    one, other = head(3, -1024.0, 0.0, 80.0)[0], head(3, 0.0, 5.0, 900.0)[0]
    x = torch.cat([torch.cat([one, other], dim=1), torch.cat([other, one], dim=1)])
    assert air_value(x).tolist() == [[-1024.0, 0.0], [0.0, -1024.0]]
