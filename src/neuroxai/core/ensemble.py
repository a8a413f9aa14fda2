"""Several networks of one kind as one: the mean of their answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    r"""The mean of several networks' outputs, :math:`z = \frac{1}{n} \sum_i f_i(x)`.

    Parameters
    ----------
    members
        Networks with the same layers and one output tensor each, as the folds of a cross
        validation.

    Examples
    --------
    >>> pair = Ensemble([nn.Linear(1, 1), nn.Linear(1, 1)])
    >>> pair.siblings("members.1.weight")
    ('members.0.weight', 'members.1.weight')
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean; ``x`` is handed to every member anew."""
        return torch.stack([member(x.clone()) for member in self.members]).mean(dim=0)

    def siblings(self, name: str) -> tuple[str, ...]:
        """Return the layer of that name in every member."""
        inner = self._inner(name)
        if not inner:
            return (name,)
        return tuple(f"members.{i}.{inner}" for i in range(len(self.members)))

    def in_all(self, name: str) -> str:
        """Return how the layer of that name in all members is called."""
        inner = self._inner(name)
        return f"members.*.{inner}" if inner else name

    @staticmethod
    def _inner(name: str) -> str:
        first, _, rest = name.partition(".")
        number, _, inner = rest.partition(".")
        return inner if first == "members" and number.isdigit() else ""
