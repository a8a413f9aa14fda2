"""Notes on maps that are exactly zero, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from neuroxai.core.errors import MethodError
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.vanishing import response, vanishing_points

_SHOWN = 3
"""Operations that a note lists."""


def zero_notes(
    reason: Callable[[Probe, Tensor, int], str], probe: Probe, x: Tensor, values: Tensor
) -> Iterator[str]:
    """Yield a note for each sample's map that is exactly zero, and for cut modalities of others.

    A modality whose part of the map is zero gets a note only if the target responds to it although
    no gradient reaches it; a modality that the network ignores is explained correctly by zeros.

    Parameters
    ----------
    reason
        Returns why the map of a sample is zero.
    probe, x
        The network with the target, and the explained point ``(B, C, *S)``.
    values
        The map.
    """
    modalities = values.shape[1] > 1
    for sample, each in enumerate(values):
        which = f" (sample {sample})" if len(values) > 1 else ""
        if not bool(each.any()):
            yield f"{reason(probe, x, sample)}{which}"
        elif modalities:
            for channel, part in enumerate(each):
                if not bool(part.any()) and _is_cut(probe, x, sample, channel):
                    yield (
                        f"the map of input channel {channel} is exactly zero, but the target "
                        "responds to small changes of this channel: the network cuts its gradient, "
                        f"as detach or rounding do, so the map does not show its effect{which}"
                    )


def gradient_reason(probe: Probe, x: Tensor, sample: int, title: str) -> str:
    """Return why a map that is made from gradients is exactly zero."""
    if has_gradient(probe, x, sample):
        if not bool((probe.gradient(x)[sample] * x[sample]).any()):
            return (
                "the map is exactly zero because the image is zero wherever the gradient of the "
                "target is not, so that their product is zero"
            )
        return (
            f"the map is exactly zero although the gradient of the target is not: {title} discards "
            "all of it on this image"
        )
    return f"the map is exactly zero because {vanished(probe, x, sample)}"


def has_gradient(probe: Probe, x: Tensor, sample: int, channel: int | None = None) -> bool:
    """Return whether the plain gradient of a sample's target is anywhere different from zero."""
    try:
        gradient = probe.gradient(x)[sample]
    except MethodError:
        return False
    return bool((gradient if channel is None else gradient[channel]).any())


def vanished(probe: Probe, x: Tensor, sample: int) -> str:
    """Return where the gradient of a sample's target vanishes, as a clause after "because"."""
    points = vanishing_points(probe, x, sample)
    more = f" and {len(points) - _SHOWN} more" if len(points) > _SHOWN else ""
    where = f", it becomes zero at {', '.join(points[:_SHOWN])}{more}" if points else ""
    change = response(probe, x, sample)
    if change:
        return (
            f"the network cuts the gradient{where}: noise of 1 % of the input's range changes the "
            f"target by {change:.3g}, so the target does depend on the input, and no gradient "
            "method can show how"
        )
    return (
        f"the gradient of the target is zero at this image{where}: small changes of the input do "
        "not change the target, as with inactive or saturated units or a constant output"
    )


def layer_reason(probe: Probe, x: Tensor, sample: int, layer: str) -> str:
    """Return why no gradient of a sample's target reaches a layer, as a clause."""
    if has_gradient(probe, x, sample):
        return (
            f"no gradient reaches layer {layer}, although the target depends on the input: what "
            "the target reads does not pass through the positions of this layer (a transformer "
            "that reads its class token ignores the patch tokens of its last block), or passes "
            "units that are inactive or detached: name an earlier layer"
        )
    return vanished(probe, x, sample)


def _is_cut(probe: Probe, x: Tensor, sample: int, channel: int) -> bool:
    if has_gradient(probe, x, sample, channel):
        return False
    return response(probe, x, sample, channel) > 0
