"""KernelSHAP: exact games, captum's, sampled games with known values, and standard errors."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from networks import TASKS, Pooled, explain, image, make, relative
from neuroxai.core.errors import MethodError
from neuroxai.methods.kernel_shap import KernelSHAP, constrained_fit
from neuroxai.methods.perturbation.shapley import every_coalition, shapley_values


def strips(dims: int, count: int) -> Tensor:
    """Return labels 1 to ``count`` of voxels in turn."""
    shape = {2: (10, 14), 3: (4, 6, 8)}[dims]
    return (torch.arange(torch.Size(shape).numel()) % count + 1).reshape(shape)


class Game(nn.Module):
    """Scores images of ones and zeros as a sum over features and pairs of them."""

    def __init__(self, labels: Tensor, pairwise: bool = True, cubic: float = 0.0) -> None:
        super().__init__()
        count = int(labels.max())
        generator = torch.Generator().manual_seed(3)
        self.alone = torch.randn(count, generator=generator).double()
        pairs = torch.randn(count, count, generator=generator).double()
        self.pairs = torch.triu(pairs, 1) * pairwise
        self.cubic = cubic
        first = [int((labels.flatten() == k + 1).nonzero()[0]) for k in range(count)]
        self.first = torch.tensor(first)
        self.scale = nn.Parameter(torch.ones(1).double())

    def forward(self, x: Tensor) -> Tensor:
        z = x[:, 0].flatten(1)[:, self.first]
        score = z @ self.alone + torch.einsum("ni,ij,nj->n", z, self.pairs, z)
        score = score + self.cubic * z[:, 0] * z[:, 1] * z[:, 2]
        return (self.scale * score)[:, None].expand(-1, 3)

    def shapley(self) -> Tensor:
        found = self.alone + (self.pairs.sum(dim=0) + self.pairs.sum(dim=1)) / 2
        found[:3] += self.cubic / 3
        return found


def ones(dims: int) -> Tensor:
    return torch.ones(1, 1, *{2: (10, 14), 3: (4, 6, 8)}[dims]).double()


@pytest.mark.parametrize(("dims", "task"), list(itertools.product((2, 3), TASKS)))
@pytest.mark.parametrize("each", [False, True])
def test_captums_exact_shapley_values(dims: int, task: str, each: bool) -> None:
    captum = pytest.importorskip("captum.attr")
    network, x = make(task, dims, 2).eval().double(), image(dims, 2).double()
    labels, start = strips(dims, 3), 0.3 * image(dims, 2, seed=8).double()
    mask = (labels - 1).expand_as(x[:1]).clone()
    if each:
        mask[:, 1] += 3
    theirs = captum.ShapleyValues(Pooled(network)).attribute(
        x, baselines=start, target=2, feature_mask=mask
    )
    method = KernelSHAP(features=labels, each_modality=each, remover=start)
    ours = explain(method, network, x)
    sizes = torch.bincount(labels.flatten()).double()[labels]
    assert (
        relative((ours.values * sizes).expand_as(theirs), theirs.double()) <= 1e-5
    )  # captum adds in single precision
    assert ours.diagnostics["exact"] == [True] * 3
    assert ours.diagnostics["relative_standard_error"] == 0
    with torch.no_grad():
        change = Pooled(network)(x)[:, 2] - Pooled(network)(start)[:, 2]
    assert torch.allclose(ours.values.flatten(1).sum(dim=1), change, atol=1e-9)


@pytest.mark.parametrize("dims", [2, 3])
def test_sampled_sets_give_the_shapley_values_of_pairwise_games(dims: int) -> None:
    """Sets in pairs with their complements leave no error for interactions of two features."""
    labels = strips(dims, 11)
    game = Game(labels)
    method = KernelSHAP(features=labels, remover="zero", samples=64)
    got = explain(method, game, ones(dims))
    values = torch.tensor(got.diagnostics["feature_values"][0], dtype=torch.float64)
    assert relative(values, game.shapley()) <= 1e-9
    assert got.diagnostics["exact"] == [False]
    assert got.diagnostics["relative_standard_error"] <= 1e-9
    additive = explain(method, Game(labels, pairwise=False), ones(dims))
    assert (
        relative(
            torch.tensor(additive.diagnostics["feature_values"][0], dtype=torch.float64), game.alone
        )
        <= 1e-9
    )


def test_standard_errors_cover_the_error_of_a_game_of_three() -> None:
    labels = strips(2, 11)
    game = Game(labels, cubic=8.0)
    inside = []
    for seed in range(20):
        got = explain(
            KernelSHAP(features=labels, remover="zero", samples=128), game, ones(2), seed=seed
        )
        values = torch.tensor(got.diagnostics["feature_values"][0], dtype=torch.float64)
        errors = torch.tensor(got.diagnostics["feature_standard_errors"][0], dtype=torch.float64)
        inside.append((values - game.shapley()).abs() <= 2 * errors)
        assert float(values.sum()) == pytest.approx(float(game.shapley().sum()))
    assert 0.8 <= float(torch.stack(inside).float().mean()) <= 1.0


def test_a_tolerance_stops_early() -> None:
    labels = strips(2, 11)
    game = Game(labels, cubic=8.0)
    method = KernelSHAP(features=labels, remover="zero", samples=1024, tolerance=0.1)
    got = explain(method, game, ones(2))
    assert got.diagnostics["samples"] < 1024
    assert got.diagnostics["relative_standard_error"] <= 0.1
    strict = KernelSHAP(features=labels, remover="zero", samples=64, tolerance=1e-6)
    assert any("above the tolerance" in note for note in explain(strict, game, ones(2)).notes)


def test_all_sets_with_the_kernels_weights_give_the_definition() -> None:
    """The constrained fit equals the definition if every set counts by its weight."""
    players = 5
    z = every_coalition(players).double()
    values = torch.randn(2**players, generator=torch.Generator().manual_seed(0)).double()
    # (M - 1) / (binomial * s * (M - s)) for M = 5: 1/5, 1/15, 1/15, 1/5.
    repeats = {1: 3, 2: 1, 3: 1, 4: 3}
    rows = [r for r in range(1, 2**players - 1) for _ in range(repeats[int(z[r].sum())])]
    got = constrained_fit(z[rows], values[rows] - values[0], float(values[-1] - values[0]))
    assert torch.allclose(got, shapley_values(values), atol=1e-10)


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(MethodError, match="20 samples are too few for 11 features"):
        explain(KernelSHAP(features=strips(2, 11), samples=20), make("classifier"), image())
    with pytest.raises(MethodError, match="an even number of sets"):
        KernelSHAP(samples=7)
