"""One forward pass with every layer held, for backward passes of any number of targets."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from neuroxai.core.engine.precision import upcast
from neuroxai.core.errors import LayerError, MethodError
from neuroxai.core.layers.activation_recorder import ActivationRecorder
from neuroxai.core.layers.layer_calls import LayerCalls
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import BoundTarget, Target


@dataclass(eq=False)
class Walk:
    """A forward pass that was taken.

    Attributes
    ----------
    recorder
        The layers' activations.
    calls
        What ran, and what has no place in the image.
    output
        The model output, with its graph.
    forward
        How many passes it took.
    """

    recorder: ActivationRecorder
    calls: LayerCalls
    output: Tensor
    forward: int = 1


def take_walk(
    network: nn.Module, x: Tensor, outputs: Outputs, *, also: Collection[str] = ()
) -> Walk:
    """Send ``x`` through a frozen network and hold every layer, and the modules named beside.

    Raises
    ------
    MethodError
        If the input is no batch of images.
    LayerError
        If nothing with a place in the image ran.
    """
    if x.dim() not in (4, 5):
        raise MethodError(
            f"the input has shape {tuple(x.shape)}, expected (B, C, H, W) or (B, C, D, H, W)"
        )
    walk = _walk(network, x, outputs, also, ())
    if overwritten := walk.recorder.overwritten():
        # Only now is it known which layers a later one writes over.
        del walk
        walk = _walk(network, x, outputs, also, overwritten)
        walk.forward = 2
    if not walk.recorder.layers:
        reasons = "; ".join(f"{name} {why}" for name, why in walk.calls.not_shown.items())
        raise LayerError(
            f"{type(network).__name__} runs no convolution, there is no flow to show"
            + (f" ({reasons})" if reasons else "")
        )
    return walk


def bind_all(targets: Sequence[Target], outputs: Outputs, walk: Walk) -> list[BoundTarget]:
    """Fix every target at the walk's output.

    Raises
    ------
    MethodError
        If there is none.
    """
    if not targets:
        raise MethodError("looking inside a network needs at least one target, got none")
    return [target.bind(outputs, walk.output.detach()) for target in targets]


def _walk(
    network: nn.Module,
    x: Tensor,
    outputs: Outputs,
    also: Collection[str],
    copied: Collection[str],
) -> Walk:
    recorder, calls = ActivationRecorder(copied), LayerCalls(network, x.dim() - 2, also)
    with calls.met(recorder.record):
        # A copy, because a network may work in place on what it is given.
        output = outputs.answer(network, upcast(x.detach()).clone())
    return Walk(recorder, calls, output)
