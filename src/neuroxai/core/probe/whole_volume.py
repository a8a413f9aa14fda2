"""The probe that passes the whole input through the network at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from neuroxai.core.probe.answers import Answers
from neuroxai.core.probe.binding import Binding
from neuroxai.core.probe.one_pass import one_pass
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.requests import Request


class WholeVolume(Probe):
    """A probe that passes the whole input through the network.

    Examples
    --------
    >>> from torch import nn
    >>> from neuroxai.core.target.target import Class
    >>> layer = nn.Linear(3, 2, bias=False)
    >>> probe = WholeVolume(nn.Sequential(nn.Flatten(), layer), Class(1))
    >>> x = torch.zeros(1, 3, 1)
    >>> with probe.at(x):
    ...     torch.equal(probe.gradient(x).flatten(), layer.weight[1])
    True
    """

    def visit_targets(
        self, x: Tensor, requests: Collection[Request], bindings: Sequence[Binding]
    ) -> list[Answers]:
        """Answer all requests at ``x`` for each target, from one forward pass."""
        self.before_pass()
        return self._count(one_pass(self._setup(bindings), x, requests))

    def run(self, x: Tensor) -> Tensor:
        """Return the model output of ``x``, without a graph."""
        with torch.no_grad():
            return self.forward(x)
