"""Guided Grad-CAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.core.explanation import Attribution
from neuroxai.core.layers.labels import AUTO
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.requests import Request
from neuroxai.methods.base import Method
from neuroxai.methods.grad_cam import GradCAM
from neuroxai.methods.guided_backprop import GuidedBackprop


@dataclass(frozen=True)
class GuidedGradCAM(Method):
    r"""Upsampled Grad-CAM times guided backpropagation, element by element (arXiv:1610.02391).

    .. math:: \mathrm{up}\Big(\mathrm{ReLU}\big(\sum_k \alpha_k A^k\big)\Big) \odot B

    (Selvaraju et al. 2017, section 3.2), of shape ``(B, C, *S)``, with the sign of the second
    factor.

    Parameters
    ----------
    layer
        See :class:`~neuroxai.methods.grad_cam.GradCAM`.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> network = torch.nn.Sequential(
    ...     torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(), torch.nn.Conv2d(3, 2, 1)
    ... )
    >>> probe = WholeVolume(network, Class(0))
    >>> GuidedGradCAM().explain(probe, torch.rand(1, 1, 6, 8)).values.shape
    torch.Size([1, 1, 6, 8])
    """

    name: ClassVar[str] = "guided_grad_cam"
    title: ClassVar[str] = "Guided Grad-CAM"
    units: ClassVar[str] = "arbitrary unit; product of Grad-CAM and guided gradient"
    citation: ClassVar[str] = "arXiv:1610.02391"

    layer: str = AUTO

    @property
    def requests(self) -> frozenset[Request]:
        """Those of both factors."""
        return GradCAM(self.layer).requests | GuidedBackprop().requests

    @property
    def gradients(self) -> int:
        """One, guided."""
        return 1

    def zero_reason(self, probe: Probe, x: Tensor, sample: int) -> str:
        """Return the reason of the factor that is zero."""
        coarse, generator = GradCAM(self.layer), torch.Generator()
        if not bool(coarse.attribute(probe, x, generator).values[sample].any()):
            return coarse.zero_reason(probe, x, sample)
        if not bool(GuidedBackprop().attribute(probe, x, generator).values[sample].any()):
            return GuidedBackprop().zero_reason(probe, x, sample)
        return (
            "the map is exactly zero because the guided gradient is zero wherever Grad-CAM is not"
        )

    def attribute(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Attribution:
        """Return the product."""
        coarse = GradCAM(self.layer).attribute(probe, x, generator)
        fine = GuidedBackprop().attribute(probe, x, generator)
        return Attribution(
            coarse.values * fine.values,
            coarse.diagnostics,
            (*coarse.notes, *fine.notes),
            coarse.layer,
        )
