"""Networks that average several outputs: of several members, or of mirrored images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuroxai.core.target.outputs import Outputs


class Ensemble(nn.Module):
    r"""The mean of several networks' outputs, :math:`z = \frac{1}{n} \sum_i f_i(x)`.

    Parameters
    ----------
    members
        Networks with the same layers and one output tensor each, such as the folds of a cross
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
        """Return the mean; every member receives its own copy of ``x``."""
        return torch.stack([member(x.clone()) for member in self.members]).mean(dim=0)

    def siblings(self, name: str) -> tuple[str, ...]:
        """Return the names of a member's layer in all members."""
        inner = self._inner(name)
        if not inner:
            return (name,)
        return tuple(f"members.{i}.{inner}" for i in range(len(self.members)))

    def in_all(self, name: str) -> str:
        """Return the common name of a layer in all members, ``members.*.layer``."""
        inner = self._inner(name)
        return f"members.*.{inner}" if inner else name

    @staticmethod
    def _inner(name: str) -> str:
        first, _, rest = name.partition(".")
        number, _, inner = rest.partition(".")
        return inner if first == "members" and (number.isdigit() or number == "*") else ""


class Mirrored(nn.Module):
    r"""Test-time mirroring: the mean probability over an image and its mirror images.

    .. math:: p(x) = 2^{-n} \sum_M M \, p_f(M x)

    over the :math:`2^n` combinations M of mirrored axes. Logits of the mean are returned, so that
    the result can replace the network.

    Parameters
    ----------
    network
        Returns logits ``(B, K)`` or ``(B, K, *S)`` for ``(B, C, *S)``.
    outputs
        Selects an output of several, and turns logits into probabilities: ``softmax`` or
        ``sigmoid``.

    Examples
    --------
    >>> network = nn.Conv2d(1, 2, (1, 3), padding=(0, 1))
    >>> odd = Mirrored(network, Outputs(activation="softmax"))
    >>> x = torch.rand(1, 1, 4, 5)
    >>> bool(torch.allclose(odd(x.flip(2)), odd(x).flip(2), atol=1e-5))
    True
    """

    def __init__(self, network: nn.Module, outputs: Outputs) -> None:
        super().__init__()
        self.network = network
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the mean probability."""
        axes = range(2, x.dim())
        mirrorings = [
            chosen for count in range(x.dim() - 1) for chosen in itertools.combinations(axes, count)
        ]
        total = self._probabilities(x, mirrorings[0])
        for mirroring in mirrorings[1:]:
            total = total + self._probabilities(x, mirroring)
        # Rounding in single precision may reach 0 or 1, where the logit is infinite.
        mean = (total / len(mirrorings)).clamp(1e-7, 1 - 1e-7)
        return mean.logit() if self.outputs.activation == "sigmoid" else mean.log()

    def _probabilities(self, x: Tensor, mirroring: tuple[int, ...]) -> Tensor:
        """Return the probabilities of one mirror image, mirrored back."""
        logits = self.outputs.select(self.network(x.flip(mirroring)), x)
        probabilities = self.outputs.probabilities(logits)
        return probabilities.flip(mirroring) if probabilities.dim() == x.dim() else probabilities
