"""Imputation against a direct solution of its linear system, in 2D and 3D."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve
from torch import Tensor, nn

from neuroxai.core.errors import MethodError
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.target import Class
from neuroxai.methods.imputation import impute
from neuroxai.methods.paths.baselines import baseline_image
from neuroxai.methods.remover_names import REMOVERS
from neuroxai.methods.removers import Remover

SHAPES = {2: (9, 7), 3: (5, 6, 4)}


def solved(image: Tensor, gone: Tensor) -> Tensor:
    """One channel, by a sparse matrix that is set up neighbor by neighbor."""
    shape, places = gone.shape, [tuple(at) for at in gone.nonzero().tolist()]
    number = {at: row for row, at in enumerate(places)}
    matrix, right = lil_matrix((len(places), len(places))), np.zeros(len(places))
    for at, row in number.items():
        for step in itertools.product((-1, 0, 1), repeat=len(shape)):
            other = tuple(a + s for a, s in zip(at, step, strict=True))
            inside = all(0 <= o < n for o, n in zip(other, shape, strict=True))
            if not any(step) or not inside:
                continue
            weight = 1 / sum(s * s for s in step)
            matrix[row, row] += weight
            if other in number:
                matrix[row, number[other]] -= weight
            else:
                right[row] += weight * float(image[other])
    filled = image.double().clone()
    filled[gone] = torch.from_numpy(np.atleast_1d(spsolve(matrix.tocsc(), right)))
    return filled


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("part", [0.1, 0.6, 0.95])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_imputation_equals_a_direct_solution(dims: int, part: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(dims)
    x = torch.randn(2, 3, *SHAPES[dims], generator=generator, dtype=torch.float64).to(dtype)
    removed = torch.rand((2, *SHAPES[dims]), generator=generator) < part
    found = impute(x, removed)
    assert found.dtype == dtype
    for b in range(2):
        for c in range(3):
            expected = solved(x[b, c], removed[b])
            assert (found[b, c].double() - expected).abs().max() < 1e-3
            assert torch.equal(found[b, c][~removed[b]], x[b, c][~removed[b]])


def test_a_hole_in_a_linear_ramp_is_filled_exactly() -> None:
    """Linear functions solve the system away from the border, where the oracle can fail."""
    at = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in (9, 8, 7)], indexing="ij")
    ramp = (2 * at[0] - at[1] + 3 * at[2])[None, None]
    removed = torch.zeros(1, 9, 8, 7, dtype=torch.bool)
    removed[0, 3:6, 2:6, 2:5] = True
    assert (impute(ramp, removed) - ramp).abs().max() < 2e-2
    assert (impute(ramp**2, removed) - ramp**2).abs().max() > 1


def test_everything_removed_becomes_the_mean_and_nothing_removed_stays() -> None:
    x = torch.rand(1, 2, 4, 5)
    every, none = torch.ones(1, 4, 5, dtype=torch.bool), torch.zeros(1, 4, 5, dtype=torch.bool)
    means = x.mean(dim=(2, 3), keepdim=True).expand_as(x)
    torch.testing.assert_close(impute(x, every), means)
    assert torch.equal(impute(x, none), x)


def test_noise_is_drawn_from_the_seed_and_only_in_the_hole() -> None:
    x = torch.rand(1, 2, 6, 5, 4)
    removed = torch.zeros(1, 6, 5, 4, dtype=torch.bool)
    removed[0, 2:4, 2:4, 1:3] = True
    one, two = (impute(x, removed, torch.Generator().manual_seed(s), noise=0.05) for s in (0, 1))
    assert torch.equal(one, impute(x, removed, torch.Generator().manual_seed(0), noise=0.05))
    assert not torch.equal(one, two)
    kept = ~removed.unsqueeze(1).expand_as(x)
    assert torch.equal(one[kept], x[kept])
    assert 0.005 < float((one - impute(x, removed)).std()) < 0.05


@pytest.mark.parametrize("name", REMOVERS)
@pytest.mark.parametrize("dims", [2, 3])
def test_removers_change_what_is_removed_alone(name: str, dims: int) -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.rand(2, 3, *SHAPES[dims], generator=generator) + 0.5
    probe = WholeVolume(nn.Identity(), Class(0))
    probe.left_right_axis = 0
    with probe.at(x):
        remover = Remover(name, probe, x)
        removed = torch.rand((4, *SHAPES[dims]), generator=generator) < 0.3
        found = remover(removed)
        twice = torch.cat([x, x])
        gone = removed.unsqueeze(1).expand_as(twice)
        assert torch.equal(found[~gone], twice[~gone])
        assert not torch.allclose(found[gone], twice[gone])
        if name not in ("neighbors", "noise"):
            image = baseline_image(name, probe, x, torch.Generator().manual_seed(0))
            assert torch.equal(found[gone], torch.cat([image, image])[gone])
        one_modality = torch.zeros_like(gone)
        one_modality[:, 1] = removed
        changed = (remover(one_modality) - twice).abs().flatten(2).amax(dim=2) > 0
        assert changed.tolist() == [[False, True, False]] * 4


def test_an_unknown_remover_is_refused() -> None:
    probe = WholeVolume(nn.Identity(), Class(0))
    with pytest.raises(MethodError, match="did you mean 'neighbors'"):
        Remover("neighbor", probe, torch.rand(1, 1, 4, 5))
