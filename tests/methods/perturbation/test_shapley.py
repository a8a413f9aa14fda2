"""Exact Shapley values: closed forms, the definition over permutations, and captum."""

from __future__ import annotations

import itertools

import pytest
import torch

from neuroxai.methods.perturbation.shapley import every_coalition, shapley_values


def by_permutations(values: torch.Tensor) -> torch.Tensor:
    """Average each player's gain over all orders in which players may join."""
    players = len(values).bit_length() - 1
    total = torch.zeros(players, *values.shape[1:], dtype=torch.float64)
    orders = list(itertools.permutations(range(players)))
    for order in orders:
        before = 0
        for player in order:
            total[player] += values[before | 1 << player].double() - values[before].double()
            before |= 1 << player
    return total / len(orders)


@pytest.mark.parametrize("players", [1, 2, 3, 5])
def test_the_mean_over_all_orders(players: int) -> None:
    generator = torch.Generator().manual_seed(players)
    values = torch.randn(2**players, 3, generator=generator, dtype=torch.float64)
    got = shapley_values(values)
    assert torch.allclose(got, by_permutations(values), atol=1e-12)
    assert torch.allclose(got.sum(dim=0), values[-1] - values[0], atol=1e-12)


def test_additive_and_pairwise_games() -> None:
    """Alone worth a, and b for each pair: the Shapley value is a + half of each pair's b."""
    players = 6
    generator = torch.Generator().manual_seed(1)
    alone = torch.randn(players, generator=generator, dtype=torch.float64)
    pairs = torch.triu(torch.randn(players, players, generator=generator).double(), 1)
    z = every_coalition(players).double()
    values = 7 + z @ alone + torch.einsum("ni,ij,nj->n", z, pairs, z)
    expected = alone + (pairs.sum(dim=0) + pairs.sum(dim=1)) / 2
    assert torch.allclose(shapley_values(values), expected, atol=1e-12)


def test_a_dummy_gets_nothing_and_equal_players_get_the_same() -> None:
    z = every_coalition(4).double()
    values = (z[:, 0] * z[:, 1]) * 5 + z[:, 3]
    assert torch.allclose(shapley_values(values), torch.tensor([2.5, 2.5, 0, 1]).double())
