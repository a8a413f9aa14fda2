"""Information flow: the class activation map of every layer, in the order the data flows."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuroxai.core.engine.fast_path import run_fast
from neuroxai.core.engine.precision import upcast
from neuroxai.core.engine.untouched import untouched
from neuroxai.core.layers.layers import Layer
from neuroxai.core.layers.reduction import MEAN_GRADIENT_WEIGHTS, LayerReduction
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import BoundTarget, Target
from neuroxai.inspection.walk import Walk, bind_all, take_walk


@dataclass(frozen=True, eq=False)
class TargetFlow:
    """How one target is decided on along the network.

    Attributes
    ----------
    target
        What was asked, as it was bound.
    score
        Its value per sample.
    maps
        Layer to its signed class activation map ``(B, 1, *S_layer)``, in the order data flows.
    beside
        Layers that the target does not depend on.
    cancelled
        Layers whose gradients add up to nothing, so that a map of them would be rounding noise:
        what follows takes the mean away, as an instance norm does.
    notes
        What a reader must know.
    """

    target: Mapping[str, Any]
    score: tuple[float, ...]
    maps: Mapping[str, Tensor]
    beside: tuple[str, ...]
    cancelled: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The target's word."""
        return str(self.target["name"])


@dataclass(frozen=True, eq=False)
class InformationFlow:
    """Every layer's map for every target.

    Attributes
    ----------
    layers
        The layers that ran, in the order data flows.
    targets
        One flow for each target asked.
    never_ran
        Convolutions and blocks that the network has but did not use.
    not_shown
        What ran but has no place in the image, and why.
    output
        The model output.
    seconds, forward, backward
        What it took: wall time, and passes through the network.
    """

    layers: tuple[Layer, ...]
    targets: tuple[TargetFlow, ...]
    never_ran: tuple[str, ...]
    not_shown: Mapping[str, str]
    output: Tensor
    seconds: float
    forward: int = 1
    backward: int = 1


def information_flow(
    network: nn.Module,
    x: Tensor,
    targets: Sequence[Target],
    outputs: Outputs | None = None,
    *,
    reduction: LayerReduction = MEAN_GRADIENT_WEIGHTS,
) -> InformationFlow:
    r"""Return the class activation map of every layer, for every target.

    .. math:: L^l = \sum_k \Big(\frac{1}{N_l} \sum_v
              \frac{\partial S}{\partial A^{l,k}_v}\Big) A^{l,k}

    signed, on the layer's own grid: Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) of each
    convolution's output, as in the third experiment of Zeineldin et al. 2022
    (doi:10.1007/s11548-022-02619-x, Fig. 5). It takes one forward pass and one backward pass for
    each target. Gradients are reduced to maps as they arrive, so memory does not grow with the
    number of layers.

    Parameters
    ----------
    network
        Any module; it is left as found.
    x
        ``(B, C, *S)``.
    targets
        What is asked; at least one.
    outputs
        What the output channels mean.
    reduction
        How a layer's activation and gradient become its map.

    Raises
    ------
    LayerError
        If the network runs no layer with a place in the image.
    MethodError
        If there is no target, or the input is no batch of images.
    TargetError
        If a target does not exist.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class
    >>> network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1))
    >>> flow = information_flow(network, torch.rand(1, 1, 6, 5), [Class(0), Class(1)])
    >>> [layer.name for layer in flow.layers], tuple(flow.targets[1].maps["0"].shape)
    (['0', '2'], (1, 1, 4, 3))
    """
    known = outputs or Outputs()
    with untouched(network), torch.enable_grad():
        return run_fast(network, upcast(x), lambda x: _flow(network, x, targets, known, reduction))


def _flow(
    network: nn.Module,
    x: Tensor,
    targets: Sequence[Target],
    outputs: Outputs,
    reduction: LayerReduction,
) -> InformationFlow:
    began = time.perf_counter()
    walk = take_walk(network, x, outputs)
    bound = bind_all(targets, outputs, walk)
    flows = [
        _follow(walk, target, reduction, retain_graph=number < len(bound))
        for number, target in enumerate(bound, start=1)
    ]
    return InformationFlow(
        layers=tuple(walk.recorder.layers.values()),
        targets=tuple(flows),
        never_ran=walk.calls.never_ran,
        not_shown=dict(walk.calls.not_shown),
        output=walk.output.detach().cpu(),
        seconds=time.perf_counter() - began,
        forward=walk.forward,
        backward=len(bound),
    )


def _follow(
    walk: Walk, target: BoundTarget, reduction: LayerReduction, *, retain_graph: bool
) -> TargetFlow:
    """Take one target's backward pass."""
    score = target.score(walk.output)
    maps: dict[str, Tensor] = {}
    if score.requires_grad:
        reductions = dict.fromkeys(walk.recorder.layers, (reduction,))
        _, reduced = walk.recorder.backward(score.sum(), [], reductions, retain_graph=retain_graph)
        maps = {name: found[reduction] for name, found in reduced.items()}
    cancelled = walk.recorder.cancelled
    ran_without = [name for name in walk.recorder.layers if name in walk.recorder.without_gradients]
    names = [name for name in walk.recorder.layers if name not in cancelled]
    return TargetFlow(
        target=target.description,
        score=tuple(score.detach().tolist()),
        maps={name: maps[name].cpu() for name in names if name in maps},
        beside=tuple(name for name in names if name not in {*maps, *ran_without}),
        cancelled=tuple(name for name in walk.recorder.layers if name in cancelled),
        notes=(*target.notes, *_said(cancelled), *_without(ran_without)),
    )


def _without(layers: Sequence[str]) -> tuple[str, ...]:
    if not layers:
        return ()
    return (
        f"{len(layers)} layer(s) have no map, because they run without gradients, under "
        f"torch.no_grad() or in a checkpoint with use_reentrant=True: {', '.join(layers)}",
    )


def _said(cancelled: Collection[str]) -> tuple[str, ...]:
    if not cancelled:
        return ()
    return (
        f"{len(cancelled)} layer(s) have no map, because their gradients cancel out over the "
        "image: a norm behind them takes the mean away; look at the norm instead",
    )
