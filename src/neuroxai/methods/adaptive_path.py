"""Where on a path gradients are worth their price: where the target changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

Ask = Callable[[Sequence[float]], Sequence[Tensor]]
"""Path positions to the target's values there, ``(B,)`` each."""

FIRST = 8
"""Intervals to begin with."""

_LENGTH = 0.5
"""How much an interval's length counts beside its share of the target's change."""


def adaptive_nodes(score: Ask, count: int) -> tuple[list[float], list[float]]:
    r"""Return nodes on [0, 1] and weights, close together where the target changes.

    From equal intervals on, the one with the largest
    :math:`\frac{|S(b) - S(a)|}{\sum |\Delta S|} + \frac{b - a}{2}` is halved until there are
    ``count`` of them; nodes are their middles, weights their lengths. One forward pass each, a
    third of a gradient's price. A network that normalizes by the image's own statistics does all
    it does within the first thousandth of a path from zero; equal steps never see that.

    Parameters
    ----------
    score
        Asks the network; of several samples the one that changes most decides.
    count
        Number of nodes.

    Examples
    --------
    >>> def late(positions):
    ...     return [torch.tensor([max(0.0, p - 0.99)]) for p in positions]
    >>> nodes, weights = adaptive_nodes(late, 16)
    >>> sum(node > 0.98 for node in nodes) >= 4, round(sum(weights), 12)
    (True, 1.0)
    """
    first = min(FIRST, count)
    edges = [k / first for k in range(first + 1)]
    scores = list(score(edges))
    while len(edges) <= count:
        changes = torch.stack(scores).double().diff(dim=0).abs()
        shares = changes / changes.sum(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
        lengths = np.diff(edges)
        worth = shares.amax(dim=1).cpu().numpy() + _LENGTH * lengths
        at = int(worth.argmax())
        middle = (edges[at] + edges[at + 1]) / 2
        scores.insert(at + 1, score([middle])[0])
        edges.insert(at + 1, middle)
    middles = (np.array(edges[:-1]) + np.array(edges[1:])) / 2
    return middles.tolist(), np.diff(edges).tolist()
