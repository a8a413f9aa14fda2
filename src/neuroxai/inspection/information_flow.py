"""Information flow: class activation maps of all layers."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from neuroxai.core.engine.cell_positions import CellPositions
from neuroxai.core.engine.fast_path import run_fast
from neuroxai.core.engine.precision import upcast
from neuroxai.core.engine.untouched import untouched
from neuroxai.core.layers.layers import Layer
from neuroxai.core.layers.positions import cropped_positions
from neuroxai.core.layers.reduction import MEAN_GRADIENT_WEIGHTS, LayerReduction
from neuroxai.core.target.bound_target import BoundTarget
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Target
from neuroxai.inspection.recorded_pass import RecordedPass, bind_targets, record_pass


@dataclass(frozen=True, eq=False)
class TargetFlow:
    """Class activation maps of all layers for one target.

    Attributes
    ----------
    target
        Description of the bound target.
    score
        Value of the target for each sample.
    maps
        Layer name to its signed class activation map ``(B, 1, *S_layer)``, in order of execution.
    independent_layers
        Layers that the target does not depend on.
    cancelled
        Layers without a map because their gradients cancel over the image, for example before an
        instance norm, which subtracts the mean. A map would be rounding noise.
    notes
        Remarks for the reader.
    """

    target: Mapping[str, Any]
    score: tuple[float, ...]
    maps: Mapping[str, Tensor]
    independent_layers: tuple[str, ...]
    cancelled: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the target."""
        return str(self.target["name"])


@dataclass(frozen=True, eq=False)
class InformationFlow:
    """Class activation maps of all layers for several targets.

    Attributes
    ----------
    layers
        Layers that ran, in order of execution.
    targets
        Maps of each target.
    never_ran
        Convolutions and blocks of the network that did not run.
    not_shown
        Modules that ran but have no map, with the reason.
    output
        Model output.
    positions
        Layer name to the positions of its cells, for layers that cover a part of the image because
        convolutions without padding left out its borders.
    seconds, forward, backward
        Wall time, and number of passes through the network.
    """

    layers: tuple[Layer, ...]
    targets: tuple[TargetFlow, ...]
    never_ran: tuple[str, ...]
    not_shown: Mapping[str, str]
    output: Tensor
    seconds: float
    forward: int = 1
    backward: int = 1
    positions: Mapping[str, CellPositions] = field(default_factory=dict)


def information_flow(
    network: nn.Module,
    x: Tensor,
    targets: Sequence[Target],
    outputs: Outputs | None = None,
    *,
    reduction: LayerReduction = MEAN_GRADIENT_WEIGHTS,
) -> InformationFlow:
    r"""Compute the class activation map of every layer for every target.

    .. math:: L^l = \sum_k \Big(\frac{1}{N_l} \sum_v
              \frac{\partial S}{\partial A^{l,k}_v}\Big) A^{l,k}

    This is the signed Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) of each convolution's
    output on the layer's grid, as in the third experiment of Zeineldin et al. 2022
    (doi:10.1007/s11548-022-02619-x, Fig. 5). It requires one forward pass and one backward pass per
    target. Gradients are reduced to maps during the backward pass, so memory does not grow with
    the number of layers.

    Parameters
    ----------
    network
        Any module; it is not changed.
    x
        ``(B, C, *S)``.
    targets
        Targets, at least one.
    outputs
        Meaning of the output channels.
    reduction
        Reduction of a layer's activation and gradient to its map.

    Raises
    ------
    LayerError
        If no layer with a spatial output runs.
    MethodError
        If there is no target, or the input is not a batch of images.
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
    recorded = record_pass(network, x, outputs)
    bound = bind_targets(targets, outputs, recorded)
    flows = [
        _backward(recorded, target, reduction, retain_graph=number < len(bound))
        for number, target in enumerate(bound, start=1)
    ]
    return InformationFlow(
        layers=tuple(recorded.recorder.layers.values()),
        targets=tuple(flows),
        never_ran=recorded.calls.never_ran,
        not_shown=dict(recorded.calls.without_map),
        output=recorded.output.detach().cpu(),
        seconds=time.perf_counter() - began,
        forward=recorded.forward,
        backward=len(bound),
        positions=cropped_positions(
            network,
            x,
            partial(outputs.select, x=x),
            recorded.recorder.layers.values(),
            functions=True,
        ),
    )


def _backward(
    recorded: RecordedPass, target: BoundTarget, reduction: LayerReduction, *, retain_graph: bool
) -> TargetFlow:
    """Run the backward pass of one target."""
    recorder = recorded.recorder
    score = target.score(recorded.output)
    maps: dict[str, Tensor] = {}
    if score.requires_grad:
        reductions = dict.fromkeys(recorder.layers, (reduction,))
        _, reduced = recorder.backward(score.sum(), [], reductions, retain_graph=retain_graph)
        maps = {name: found[reduction] for name, found in reduced.items()}
    cancelled = recorder.cancelled
    without_gradients = [name for name in recorder.layers if name in recorder.without_gradients]
    names = [name for name in recorder.layers if name not in cancelled]
    explained = {*maps, *without_gradients}
    return TargetFlow(
        target=target.description,
        score=tuple(score.detach().tolist()),
        maps={name: maps[name].cpu() for name in names if name in maps},
        independent_layers=tuple(name for name in names if name not in explained),
        cancelled=tuple(name for name in recorder.layers if name in cancelled),
        notes=(
            *target.notes,
            *_note_cancelled(cancelled),
            *_note_without_gradients(without_gradients),
        ),
    )


def _note_without_gradients(layers: Sequence[str]) -> tuple[str, ...]:
    if not layers:
        return ()
    return (
        f"{len(layers)} layer(s) have no map because they run without gradients (torch.no_grad() "
        f"or a checkpoint with use_reentrant=True): {', '.join(layers)}",
    )


def _note_cancelled(layers: Collection[str]) -> tuple[str, ...]:
    if not layers:
        return ()
    return (
        f"{len(layers)} layer(s) have no map because their gradients cancel over the image; the "
        "norm that follows subtracts the mean, so look at the norm instead",
    )
