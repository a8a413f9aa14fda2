r"""Norms that keep the channels last, and keep no more than their gradient needs.

A batch norm in evaluation mode is :math:`y = x \, s + t` with a number for each channel; its
gradient needs :math:`s` alone, while stock torch keeps ``x``. An instance norm of stock torch turns
the channels first; this one takes them as they lie, with

.. math:: \frac{\partial S}{\partial x} = s \Big(g - \overline{g}
          - \frac{x - \overline{x}}{\sigma^2} \, \overline{g \, (x - \overline{x})}\Big)

of the gradient :math:`g` that arrives, means over space.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """Return ``x`` ``(B, C, *S)`` normed by known statistics; all but ``x`` is frozen."""
    given: Tensor = _BatchNorm.apply(x, mean, variance, weight, bias, eps)  # type: ignore[no-untyped-call]
    return given


def instance_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Return ``x`` ``(B, C, *S)`` normed by every sample's own statistics, laid as ``x`` is."""
    given: Tensor = _InstanceNorm.apply(x, weight, bias, eps)  # type: ignore[no-untyped-call]
    return given


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mean: Tensor,
        variance: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> Tensor:
        scale = torch.rsqrt(variance.detach() + eps)
        ctx.save_for_backward(scale if weight is None else scale * weight.detach())
        return torch.batch_norm(
            x, weight, bias, mean, variance, False, 0.0, eps, torch.backends.cudnn.enabled
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (scale,) = ctx.saved_tensors
        return gradient * _along(scale, gradient), None, None, None, None, None


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        space = tuple(range(2, x.dim()))
        # Centered first: the mean of squares less the square of the mean loses every digit.
        centered = x - x.mean(dim=space, keepdim=True)
        inverse = (centered * centered).mean(dim=space, keepdim=True).add_(eps).rsqrt_()
        scale = inverse if weight is None else inverse * _along(weight, x)
        ctx.save_for_backward(centered, inverse, scale)
        y = centered * scale
        return y if bias is None else y.add_(_along(bias, x))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        centered, inverse, scale = ctx.saved_tensors
        space = tuple(range(2, gradient.dim()))
        # A mean over the image sends nearly the same gradient everywhere: what is left of it after
        # its mean is small, so the mean is taken away before anything is added up.
        rest = gradient - gradient.mean(dim=space, keepdim=True)
        slope = (rest * centered).mean(dim=space, keepdim=True) * inverse.square()
        return rest.addcmul_(centered, slope, value=-1).mul_(scale), None, None, None


def _along(values: Tensor, x: Tensor) -> Tensor:
    """Return one value a channel so that it broadcasts over ``x``."""
    return values.detach().view(1, -1, *[1] * (x.dim() - 2))
