"""Deviation of a reduced precision from full precision, measured on the explained input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from neuroxai.core.engine.settings import PassSettings
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.requests import InputGradient


@dataclass(frozen=True)
class Deviation:
    """Difference between a gradient and an output in a reduced precision and in ``fp32``.

    Attributes
    ----------
    precision
        The reduced precision.
    gradient_cosine
        Cosine similarity of the two gradients.
    gradient_relative_l2, output_relative_l2
        Norm of the difference over the norm in ``fp32``.
    changed
        Share of voxels (of samples, for a classifier) with another predicted class.
    """

    precision: str
    gradient_cosine: float
    gradient_relative_l2: float
    output_relative_l2: float
    changed: float

    def describe(self) -> dict[str, Any]:
        """Return the deviation, ready for JSON."""
        return asdict(self)

    def note(self) -> str:
        """Return the deviation as a sentence."""
        return (
            f"{self.precision} compared with fp32: gradient cosine {self.gradient_cosine:.3f}, "
            f"gradient difference {self.gradient_relative_l2:.1%} (relative L2), output difference "
            f"{self.output_relative_l2:.2%}, {self.changed:.2%} of the predicted classes changed"
        )


def measure_deviation(
    make_probe: Callable[[PassSettings], Probe], x: Tensor, precision: str
) -> Deviation:
    r"""Compute one gradient in a reduced precision and one in ``fp32``, and compare them.

    With g and f the gradients of the target in the two,

    .. math:: \cos = \frac{g \cdot f}{|g| |f|}, \qquad \delta = \frac{|g - f|}{|f|}

    Parameters
    ----------
    make_probe
        Makes a new probe with given settings.
    x
        The explained input, ``(B, C, *S)``.
    precision
        See :class:`~neuroxai.core.engine.settings.PassSettings`.
    """
    output, gradient = _output_and_gradient(make_probe(PassSettings(precision)), x)
    full_output, full_gradient = _output_and_gradient(make_probe(PassSettings()), x)
    cosine = torch.nn.functional.cosine_similarity(
        gradient.flatten(), full_gradient.flatten(), dim=0
    )
    changed = output.argmax(dim=1) != full_output.argmax(dim=1)
    return Deviation(
        precision,
        gradient_cosine=float(cosine),
        gradient_relative_l2=_relative_l2(gradient, full_gradient),
        output_relative_l2=_relative_l2(output, full_output),
        changed=float(changed.double().mean()),
    )


def _output_and_gradient(probe: Probe, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return output and gradient in float64, for the comparison."""
    with probe.at(x, [InputGradient()]):
        return probe.output().double(), probe.gradient(x).double()


def _relative_l2(value: Tensor, reference: Tensor) -> float:
    least = torch.finfo(reference.dtype).tiny
    return float((value - reference).norm() / reference.norm().clamp(min=least))
