"""The probe that sends the whole volume through the network at once."""

from __future__ import annotations

import torch
from torch import Tensor

from neuroxai.core.probe.answers import Answers, Asks
from neuroxai.core.probe.one_pass import one_pass
from neuroxai.core.probe.probe import Probe


class WholeVolume(Probe):
    """Answers a method's questions with passes over the whole input.

    Examples
    --------
    >>> from torch import nn
    >>> from neuroxai.core.target.target import Class
    >>> layer = nn.Linear(3, 2, bias=False)
    >>> probe = WholeVolume(nn.Sequential(nn.Flatten(), layer), Class(1))
    >>> x = torch.zeros(1, 3, 1)
    >>> with probe.at(x, Asks(gradient=True)):
    ...     torch.equal(probe.gradient(x).flatten(), layer.weight[1])
    True
    """

    def visit(self, x: Tensor, asks: Asks) -> Answers:
        """Answer everything asked about ``x`` from one forward pass."""
        return one_pass(self, x, asks)

    def run(self, x: Tensor) -> Tensor:
        """Return the model output of ``x``, without a graph."""
        with torch.no_grad():
            return self.forward(x)
