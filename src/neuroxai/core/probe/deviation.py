"""How far a lower precision is from full, measured on the very case and target."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from neuroxai.core.engine.settings import PassSettings
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.requests import InputGradient


def measure_deviation(
    probe: Callable[[PassSettings], Probe], x: Tensor, precision: str
) -> dict[str, Any]:
    r"""Take one gradient in a lower precision and one in ``fp32``, and compare them.

    With g and f the gradients of the target in the two,

    .. math:: \cos = \frac{g \cdot f}{|g| |f|}, \qquad \delta = \frac{|g - f|}{|f|}

    Parameters
    ----------
    probe
        Makes a probe with given settings.
    x
        ``(B, C, *S)``.
    precision
        See :class:`~neuroxai.core.engine.settings.PassSettings`.

    Returns
    -------
    dict
        ``precision``, ``gradient_cosine``, ``gradient_relative_l2``, ``output_relative_l2``, and
        ``changed``, the share of voxels (of answers, for a classifier) with another class.
    """
    output, gradient = _taken(probe(PassSettings(precision)), x)
    full_output, full = _taken(probe(PassSettings()), x)
    changed = output.argmax(dim=1) != full_output.argmax(dim=1)
    cosine = torch.nn.functional.cosine_similarity(gradient.flatten(), full.flatten(), dim=0)
    return {
        "precision": precision,
        "gradient_cosine": float(cosine),
        "gradient_relative_l2": _relative(gradient, full),
        "output_relative_l2": _relative(output, full_output),
        "changed": float(changed.double().mean()),
    }


def deviation_notes(deviation: Mapping[str, Any]) -> Iterator[str]:
    """Yield the deviation as a sentence, where one was measured."""
    if deviation:
        yield (
            f"{deviation['precision']}, measured against fp32: the gradient has cosine "
            f"{deviation['gradient_cosine']:.3f} and is {deviation['gradient_relative_l2']:.1%} "
            f"away (relative L2), the output {deviation['output_relative_l2']:.2%}; "
            f"{deviation['changed']:.2%} of the answers are of another class"
        )


def _taken(probe: Probe, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return output and gradient in double precision, to compare them in."""
    with probe.at(x, [InputGradient()]):
        return probe.output().double(), probe.gradient(x).double()


def _relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm().clamp(min=torch.finfo(other.dtype).tiny))
