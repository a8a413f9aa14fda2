"""Control network with shuffled weights, to measure what a metric yields by chance."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

_NORMS = nn.modules.batchnorm._BatchNorm


def shuffle_weights(network: nn.Module, inputs: Iterable[Tensor], *, seed: int = 0) -> nn.Module:
    """Copy of a network with shuffled weights.

    The values of every parameter with more than one axis are permuted, which keeps their
    distribution and destroys what was learned (Adebayo et al. 2018, arXiv:1810.03292, randomize
    weights to test explanations). Norms with running statistics measure them again on ``inputs``:
    with the original statistics, most filters would be inactive and the control too easy to beat.
    A norm that receives a single value per channel (in squeeze-and-excitation blocks or pooled
    branches) keeps its statistics, because a single value has no variance.

    Parameters
    ----------
    network
        Any module; it is not changed.
    inputs
        Images ``(B, C, *S)`` to measure the statistics on, at least one.
    seed
        Seed of the permutations.

    Examples
    --------
    >>> network = nn.Conv2d(1, 4, 3)
    >>> control = shuffle_weights(network, [torch.rand(1, 1, 5, 6)])
    >>> torch.equal(control.weight.flatten().sort().values, network.weight.flatten().sort().values)
    True
    >>> torch.equal(control.weight, network.weight)
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
                    norm.num_batches_tracked.zero_()  # discards the original statistics
                norm.momentum = None  # cumulative mean over all inputs
                stack.callback(norm.register_forward_pre_hook(_measure_statistics).remove)
            if norms:
                for x in inputs:
                    control(x.clone())
    return control.eval()


def _measure_statistics(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Update running statistics if the input has more than one value per channel."""
    x = inputs[0]
    norm.train(x.numel() > x.shape[1])
