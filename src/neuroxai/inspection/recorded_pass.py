"""Forward pass with the activations of all layers, for backward passes of several targets."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from neuroxai.core.engine.precision import upcast
from neuroxai.core.errors import LayerError, MethodError
from neuroxai.core.layers.activation_recorder import ActivationRecorder
from neuroxai.core.layers.layer_calls import LayerCalls
from neuroxai.core.target.bound_target import BoundTarget
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Target


@dataclass(eq=False)
class RecordedPass:
    """A forward pass with recorded activations.

    Attributes
    ----------
    recorder
        Activations of the layers.
    calls
        Layers that ran, and modules without a spatial output.
    output
        Model output with its autograd graph.
    forward
        Number of forward passes needed.
    """

    recorder: ActivationRecorder
    calls: LayerCalls
    output: Tensor
    forward: int = 1


def record_pass(
    network: nn.Module, x: Tensor, outputs: Outputs, *, also: Collection[str] = ()
) -> RecordedPass:
    """Run a frozen network on ``x`` and record all layers, and the modules named in ``also``.

    Raises
    ------
    MethodError
        If the input is not a batch of images.
    LayerError
        If no layer with a spatial output runs.
    """
    if x.dim() not in (4, 5):
        raise MethodError(
            f"the input has shape {tuple(x.shape)}, expected (B, C, H, W) or (B, C, D, H, W)"
        )
    recorded = _record(network, x, outputs, also, ())
    if overwritten := recorded.recorder.overwritten():
        # Some activations were changed in place by later layers, so these are copied in a second
        # pass.
        del recorded
        recorded = _record(network, x, outputs, also, overwritten)
        recorded.forward = 2
    if not recorded.recorder.layers:
        reasons = "; ".join(f"{name} {why}" for name, why in recorded.calls.without_map.items())
        raise LayerError(
            f"{type(network).__name__} runs no convolution; information flow requires at least one"
            + (f" ({reasons})" if reasons else "")
        )
    return recorded


def bind_targets(
    targets: Sequence[Target], outputs: Outputs, recorded: RecordedPass
) -> list[BoundTarget]:
    """Bind every target to the output of the pass.

    Raises
    ------
    MethodError
        If there is no target.
    """
    if not targets:
        raise MethodError("no target was given; name at least one class or region")
    return [target.bind(outputs, recorded.output.detach()) for target in targets]


def _record(
    network: nn.Module,
    x: Tensor,
    outputs: Outputs,
    also: Collection[str],
    copied: Collection[str],
) -> RecordedPass:
    recorder, calls = ActivationRecorder(copied), LayerCalls(network, x.dim() - 2, also)
    with calls.visited(recorder.record):
        # A copy, because networks may change their input in place.
        output = outputs.run(network, upcast(x.detach()).clone())
    return RecordedPass(recorder, calls, output)
