"""Exact Shapley values, from the values of all coalitions."""

from __future__ import annotations

from math import factorial

import torch
from torch import Tensor

MOST_PLAYERS = 8
"""Features up to which all coalitions are evaluated: 256 passes."""


def every_coalition(players: int) -> Tensor:
    """Return all coalitions, ``(2^M, M)`` bool; the first is empty and the last has all players.

    Examples
    --------
    >>> every_coalition(2).int().tolist()
    [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    number = torch.arange(2**players)[:, None]
    return (number >> torch.arange(players)) % 2 == 1


def shapley_values(values: Tensor) -> Tensor:
    r"""Return the Shapley values of a game (Shapley 1953, doi:10.1515/9781400881970-018).

    .. math:: \phi_i = \sum_{S \not\ni i} \frac{|S|! \, (M - |S| - 1)!}{M!}
              \big(v(S \cup \{i\}) - v(S)\big)

    They sum to the value of all players minus that of none.

    Parameters
    ----------
    values
        ``(2^M, ...)``, in the order of :func:`every_coalition`.

    Returns
    -------
    Tensor
        ``(M, ...)``, in double precision.

    Examples
    --------
    >>> shapley_values(torch.tensor([0.0, 3.0, 0.0, 5.0])).tolist()  # v(1) = 3, v(2) = 0, v(12) = 5
    [4.0, 1.0]
    """
    players = values.shape[0].bit_length() - 1
    coalitions = every_coalition(players)
    sizes = coalitions.sum(dim=1)
    weights = torch.tensor(
        [factorial(s) * factorial(players - s - 1) for s in range(players)], dtype=torch.float64
    ) / factorial(players)
    found = []
    for player in range(players):
        without = (~coalitions[:, player]).nonzero().flatten()
        gains = (values[without + 2**player] - values[without]).double()
        weight = weights[sizes[without]].to(values.device)
        found.append((weight.reshape(-1, *[1] * (values.dim() - 1)) * gains).sum(dim=0))
    return torch.stack(found)
