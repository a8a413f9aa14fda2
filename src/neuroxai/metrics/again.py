"""Maps computed again: of the same question for another input, seed or network."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from neuroxai.core.probe.probe import Probe
from neuroxai.core.target.fixed import Fixed
from neuroxai.metrics.judged import Judged


def same_question(judged: Judged, network: nn.Module | None = None) -> Probe:
    """Return a probe of the question that was asked, with its classes and place fixed.

    Parameters
    ----------
    network
        Another network of the same outputs; by default the explained one.
    """
    probe = judged.asked()
    with probe.at(judged.x):
        fixed = Fixed(probe.target)
    return probe.for_network(network or probe.network, fixed)


def map_again(judged: Judged, probe: Probe, x: Tensor | None = None, seed: int | None = None,
              ) -> Tensor:  # fmt: skip
    """Return the map of an input that the judged map's method computes, ``(B, C, *S)``."""
    image = judged.x if x is None else x
    chosen = judged.seed if seed is None else seed
    return judged.way().explain(probe, image, seed=chosen).values.double()


def other_class(judged: Judged) -> tuple[Probe | None, int | None]:
    """Return a probe of the same question about another class, drawn, and its channel.

    Both are None for a network of one class.
    """
    probe = judged.asked()
    with probe.at(judged.x):
        bound, classes = probe.target, probe.output().shape[1]
    taken = {int(c) for c in bound.channels.flatten()}
    others = [c for c in range(classes) if c not in taken]
    if not others:
        return None, None
    drawn = torch.randint(len(others), (), generator=torch.Generator().manual_seed(judged.seed))
    other = others[int(drawn)]
    channels = torch.full((len(judged.x), 1), other, device=bound.channels.device)
    changed = replace(bound, channels=channels, negated=None, against=None, function=None)
    return probe.for_network(probe.network, Fixed(changed)), other


def randomized(network: nn.Module, seed: int, layers: set[str] | None = None) -> nn.Module:
    """Return a copy of a network with random weights; the original stays as it is.

    Modules draw their initial weights again, and norms start with their initial statistics. A
    parameter that no module initializes is drawn from a normal distribution of its own mean and
    standard deviation.

    Parameters
    ----------
    layers
        Names of the modules to randomize; all by default.
    """
    drawn = copy.deepcopy(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        done: set[int] = set()
        for name, module in drawn.named_modules():
            if hasattr(module, "reset_parameters") and (layers is None or name in layers):
                module.reset_parameters()
                done |= {id(p) for p in module.parameters(recurse=False)}
        if layers is None:
            _redraw(drawn, done)
    return drawn.eval()


def _redraw(network: nn.Module, done: set[int]) -> None:
    """Draw the parameters that no module initialized."""
    with torch.no_grad():
        for parameter in network.parameters():
            if id(parameter) in done or not parameter.is_floating_point():
                continue
            mean, deviation = parameter.mean(), parameter.std(correction=0)
            parameter.normal_(float(mean), float(deviation))


def weighted_layers(network: nn.Module) -> list[str]:
    """Return the names of modules that initialize their own weights, in order of definition."""
    return [
        name
        for name, module in network.named_modules()
        if callable(getattr(module, "reset_parameters", None))
        and any(True for _ in module.parameters(recurse=False))
    ]
