"""Networks with a planted filter, shared by the tests of dissection, ablation and the control."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import networks
from neuroxai.inspection.dissection import Match


class Planted(nn.Module):
    """Filter 2 of the second layer detects bright voxels of the second modality exactly."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        conv: Any = networks.CONV[dims]
        norm: Any = networks.NORM[dims]
        self.first = conv(2, 3, 3, padding=1)
        self.first_norm = norm(3)
        self.first_act = nn.ReLU()
        self.second = conv(2, 4, 1)
        # Its negative weight inverts the sign of the convolution.
        self.second_norm = norm(4)
        self.second_act = nn.ReLU()
        self.output = conv(4, 2, 1)
        with torch.no_grad():
            # No other filter uses the second modality.
            self.first.weight[:, 1] = 0
            self.second.weight[:, 1] = 0
            self.second.weight[2] = 0
            self.second.weight[2, 1] = -1.0
            self.second.bias[2] = 0.5
            self.second_norm.weight[2] = -1.0
            self.output.weight.zero_()
            self.output.bias.zero_()
            self.output.weight[1, 2] = 1.0
            self.output.bias[0] = 0.01

    def forward(self, x: Tensor) -> Tensor:
        self.first_act(self.first_norm(self.first(x)))
        out: Tensor = self.output(self.second_act(self.second_norm(self.second(x))))
        return out


def planted(dims: int, seed: int = 0) -> tuple[nn.Module, list[tuple[Tensor, dict[str, Tensor]]]]:
    """Network, and three cases with masks of the planted concept and of a random one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Planted(dims).eval()
        shape = networks.SHAPES[dims]
        cases = []
        for number in range(3):
            x = 0.4 * torch.rand(1, 2, *shape)
            bright = torch.rand(shape) < 0.1 + 0.05 * number
            x[0, 1][bright] += 0.5
            cases.append((x, {"bright": bright, "chance": torch.rand(shape) < 0.2}))
    return network, cases


def best_of(matches: list[Match], concept: str) -> Match:
    """Match of a concept with the largest IoU."""
    return max((m for m in matches if m.concept == concept), key=lambda match: match.iou)


def one_filter(*after: nn.Module, weight: float = 1.0, bias: float = 0.0) -> nn.Module:
    """Network with one filter, an affine function of the image, followed by ``after``."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1), *after).eval()
    with torch.no_grad():
        network[0].get_parameter("weight").fill_(weight)
        network[0].get_parameter("bias").fill_(bias)
    return network


def activations(network: nn.Module, end: str, x: Tensor) -> Tensor:
    """Output of the module named ``end``."""
    kept: list[Tensor] = []
    handle = network.get_submodule(end).register_forward_hook(lambda m, i, o: kept.append(o))
    with torch.no_grad():
        network(x)
    handle.remove()
    return kept[0]
