"""The control: the same network with weights that have learned nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

_NORMS = nn.modules.batchnorm._BatchNorm


def randomized(network: nn.Module, inputs: Iterable[Tensor], *, seed: int = 0) -> nn.Module:
    """Return a copy of a network whose weights are shuffled, so that chance can be measured.

    Every tensor with more than one axis keeps its own values in random places: the same
    distribution, nothing learned (Adebayo et al. 2018, arXiv:1810.03292, randomize weights to see
    what an explanation owes to learning). Norms with running statistics measure them anew on
    ``inputs``, because with the old ones most filters of a shuffled network are dead and the
    control would be too easy. A norm that sees one value of each channel (squeeze and excitation,
    a pooled branch) keeps its own: one value has no variance, and says nothing about places.

    Parameters
    ----------
    network
        Any module; it is left as found.
    inputs
        Images ``(B, C, *S)``, at least one, to measure statistics on.
    seed
        Of the shuffle.

    Examples
    --------
    >>> network = nn.Conv2d(1, 4, 3)
    >>> other = randomized(network, [torch.rand(1, 1, 5, 6)])
    >>> torch.equal(other.weight.flatten().sort().values, network.weight.flatten().sort().values)
    True
    >>> torch.equal(other.weight, network.weight)
    False
    """
    control = copy.deepcopy(network).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in control.parameters():
            parameter.requires_grad_(False)
            if parameter.dim() > 1:
                order = torch.randperm(parameter.numel(), generator=generator)
                parameter.copy_(parameter.flatten()[order.to(parameter.device)].view_as(parameter))
        norms = [module for module in control.modules() if isinstance(module, _NORMS)]
        norms = [norm for norm in norms if norm.track_running_stats]
        with ExitStack() as stack:
            for norm in norms:
                if norm.num_batches_tracked is not None:
                    norm.num_batches_tracked.zero_()  # so the first measured replace the old ones
                norm.momentum = None  # a plain mean over all inputs
                stack.callback(norm.register_forward_pre_hook(_measure_if_several).remove)
            if norms:
                for x in inputs:
                    control(x.clone())
    return control.eval()


def _measure_if_several(norm: nn.Module, given: tuple[Any, ...]) -> None:
    """Have a norm measure what it is given, if that is more than one value of each channel."""
    x = given[0]
    norm.train(x.numel() > x.shape[1])
