"""Deconvolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from neuroxai.core.rules.backward_rule import BackwardRule, Call, GradientChange
from neuroxai.core.rules.rectifier_rule import RectifierRule
from neuroxai.methods.input_gradient import InputGradientMethod


@dataclass(frozen=True)
class Deconvnet(RectifierRule):
    r"""Only positive gradients pass back, through active and inactive units alike.

    .. math:: B^l = (B^{l+1} > 0) \cdot B^{l+1}
    """

    title: ClassVar[str] = "deconvolution"
    extension: ClassVar[str] = (
        "a positive gradient passes unchanged, whatever the activation's input and derivative"
    )

    def at_activation(self, call: Call) -> GradientChange:
        """Return the positive part of the gradient at the output."""
        return _positive_part


def _positive_part(gradient: Tensor, own: Tensor) -> Tensor:
    return gradient.clamp(min=0).to(own.dtype)


@dataclass(frozen=True)
class Deconvolution(InputGradientMethod):
    r"""The gradient with rectifiers inverted by rectifying the signal (arXiv:1311.2901).

    .. math:: B_i^l = (B_i^{l+1} > 0) \cdot B_i^{l+1}

    at every rectifier, whatever its input (Zeiler & Fergus 2014), of shape ``(B, C, *S)``. Max
    pooling passes the signal to the position of the maximum, as in the gradient. Activations other
    than ReLU, for which no rule was published, are treated alike, and a note names them.

    Raises
    ------
    MethodError
        See :class:`~neuroxai.methods.guided_backprop.GuidedBackprop`.

    Examples
    --------
    >>> import torch
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.ReLU())
    >>> x = torch.ones(1, 1, 2, 5)
    >>> Deconvolution().explain(WholeVolume(network, Class(0)), x).values.shape
    torch.Size([1, 1, 2, 5])
    """

    name: ClassVar[str] = "deconvolution"
    title: ClassVar[str] = "Deconvolution"
    citation: ClassVar[str] = "arXiv:1311.2901"
    rule: ClassVar[BackwardRule] = Deconvnet()
