r"""Norms that keep the channels last, and keep no more than their gradient needs.

A batch norm in evaluation mode is :math:`y = x \, s + t` with a number for each channel; its
gradient needs :math:`s` alone, while stock torch keeps ``x``. Of norms over an image's own
statistics stock torch has none for this order: its instance norm turns the channels first, and its
group norm adds up a whole image in single precision (logits of a SegResNet off by 3e-3). Here


.. math:: \frac{\partial S}{\partial x} = \frac{1}{\sigma} \Big(g - \overline{g}
          - \frac{x - \overline{x}}{\sigma^2} \, \overline{g \, (x - \overline{x})}\Big)

of the gradient :math:`g` that arrives, weighted; means over space, then over a group's channels.
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


def group_norm(
    x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Return ``x`` ``(B, C, *S)`` normed by its own statistics, laid as ``x`` is.

    Each sample and group of channels by its own; as many groups as channels make an instance norm.
    """
    given: Tensor = _GroupNorm.apply(x, groups, weight, bias, eps)  # type: ignore[no-untyped-call]
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


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        # Centered first: the mean of squares less the square of the mean loses every digit.
        centered = x - _means(x, groups)
        inverse = _means(centered * centered, groups).add_(eps).rsqrt_()
        ctx.save_for_backward(centered, inverse)
        ctx.weight, ctx.groups = weight, groups
        y = centered * (inverse if weight is None else inverse * _along(weight, x))
        return y if bias is None else y.add_(_along(bias, x))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        centered, inverse = ctx.saved_tensors
        if ctx.weight is not None:
            gradient = gradient * _along(ctx.weight, gradient)
        # A mean over the image sends nearly the same gradient everywhere: what is left of it after
        # its mean is small, so the mean is taken away before anything is added up.
        rest = gradient - _means(gradient, ctx.groups)
        slope = _means(rest * centered, ctx.groups) * inverse.square()
        back = rest.addcmul_(centered, slope, value=-1).mul_(inverse)
        return back, None, None, None, None


def _means(x: Tensor, groups: int) -> Tensor:
    """Return the mean of every sample's every group, once for each of its channels."""
    means = x.mean(dim=tuple(range(2, x.dim())), keepdim=True)
    if groups == x.shape[1]:
        return means
    shared: Tensor = means.unflatten(1, (groups, -1)).mean(dim=2)
    return shared.repeat_interleave(x.shape[1] // groups, dim=1)


def _along(values: Tensor, x: Tensor) -> Tensor:
    """Return one value a channel so that it broadcasts over ``x``."""
    return values.detach().view(1, -1, *[1] * (x.dim() - 2))
