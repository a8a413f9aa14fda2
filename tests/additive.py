"""A network whose score is a weighted sum of all values, so that every share is known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.target import Class
from neuroxai.metrics import Judged

SHAPES = {2: (9, 7), 3: (5, 6, 4)}


class Additive(nn.Module):
    """The score of class 1 is a weighted sum of all values."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        score = (self.weight * x).flatten(1).sum(dim=1)
        return torch.stack([-score, score], dim=1)


def additive(dims: int, channels: int = 2) -> tuple[Judged, Tensor]:
    """Return the true shares as a map of three samples, and as float64."""
    generator = torch.Generator().manual_seed(dims)
    x = torch.rand(3, channels, *SHAPES[dims], generator=generator) + 0.5
    weight = torch.randn(1, channels, *SHAPES[dims], generator=generator)
    probe = WholeVolume(Additive(weight), Class(1))
    brain = torch.rand((3, *SHAPES[dims]), generator=generator) < 0.8
    return Judged(weight * x, x, probe, brain=brain, evidence="positive"), (weight * x).double()
