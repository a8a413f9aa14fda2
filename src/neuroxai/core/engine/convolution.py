r"""3D convolutions on the CPU in channels-last format: same result, less time and memory.

Stock torch has three weaknesses here (torch 2.13, measured in ``benchmarks/convolutions.py``). A
small convolution of a batch of one runs in ``slow_conv3d``, one matrix product after another. A
large one runs in oneDNN with the channels first, which has to be reordered before and after. And
the input is saved for the gradient of the weights, although they are frozen. Here every convolution
runs in oneDNN with the channels last (``torch.channels_last_3d``), and only the weights are saved.
For a stride of one, the gradient of the input,

.. math:: \frac{\partial S}{\partial x} = \sum_k \frac{\partial S}{\partial y_k} \star w_k,

is itself a convolution: of the output's gradient with the flipped weights. oneDNN processes blocks
of eight channels. Ten or twelve channels, as after a U-Net's concatenation of the input, are
therefore padded to sixteen, and for an image of one to four channels, two neighbors along the width
are computed at once, as twice the channels of every other voxel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuroxai.core.engine.converted_weights import CHANNELS_LAST, ConvertedWeights

Triple = tuple[int, int, int]

_aten = torch.ops.aten
_ONES: Triple = (1, 1, 1)
_NO_PADDING: Triple = (0, 0, 0)
_FEW = 4
"""Channels that fill at most half of a oneDNN block."""


@dataclass(frozen=True)
class Geometry:
    """How a kernel moves over an image; every triple is depth, height, width.

    ``output_padding`` is for transposed convolutions.
    """

    stride: Triple
    padding: Triple
    dilation: Triple
    groups: int = 1
    output_padding: Triple = _NO_PADDING


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, at: Geometry, weights: ConvertedWeights
) -> Tensor:
    """Return ``conv3d`` of ``x`` ``(B, C, D, H, W)`` in channels-last format.

    Weight and bias are taken as frozen.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        y: Tensor = _Convolution.apply(x, weight, bias, at, weights)  # type: ignore[no-untyped-call]
        return y
    return _forward(x, weight, bias, at, weights)


def convolve_transposed(
    x: Tensor, weight: Tensor, bias: Tensor | None, at: Geometry, weights: ConvertedWeights
) -> Tensor:
    """Return ``conv_transpose3d`` of ``x`` ``(B, C, D, H, W)`` in channels-last format.

    Weight and bias are taken as frozen.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        y: Tensor = _Transposed.apply(x, weight, bias, at, weights)  # type: ignore[no-untyped-call]
        return y
    return _forward_transposed(x, weight, bias, at, weights)


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, at: Geometry, weights: ConvertedWeights
) -> Tensor:
    x = x.contiguous(memory_format=CHANNELS_LAST)
    y: Tensor = _aten.mkldnn_convolution(
        x, weights.forward(weight), bias, at.padding, at.stride, at.dilation, at.groups
    )
    return y


def _forward_transposed(
    x: Tensor, weight: Tensor, bias: Tensor | None, at: Geometry, weights: ConvertedWeights
) -> Tensor:
    rest = (at.stride, at.padding, at.dilation, True, at.output_padding, at.groups)
    if _backend(x, weight, bias, rest).startswith("Slow"):
        return _in_onednn(x, lambda opaque: _aten.convolution(opaque, weight, bias, *rest))
    x = x.contiguous(memory_format=CHANNELS_LAST)
    y: Tensor = _aten.convolution(x, weights.forward(weight), bias, *rest)
    return y


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        at: Geometry,
        weights: ConvertedWeights,
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.at, ctx.weights = x.shape, at, weights
        return _forward(x, weight, bias, at, weights)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weight,) = ctx.saved_tensors
        at: Geometry = ctx.at
        reach = [d * (k - 1) for d, k in zip(at.dilation, weight.shape[2:], strict=True)]
        border = tuple(r - p for r, p in zip(reach, at.padding, strict=True))
        if at.stride == _ONES and min(border) >= 0:
            unit = Geometry(_ONES, (border[0], border[1], border[2]), at.dilation, at.groups)
            back = _unit_input_gradient(gradient, ctx.shape, weight, unit, ctx.weights)
        else:
            back = _input_gradient(gradient, ctx.shape, weight, at, ctx.weights)
        return back, None, None, None, None


class _Transposed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        at: Geometry,
        weights: ConvertedWeights,
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.at, ctx.weights = at, weights
        return _forward_transposed(x, weight, bias, at, weights)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weight,) = ctx.saved_tensors
        # A transposed convolution is the gradient of a convolution; its own is that convolution.
        return _forward(gradient, weight, None, ctx.at, ctx.weights), None, None, None, None


def _unit_input_gradient(
    gradient: Tensor, shape: torch.Size, weight: Tensor, back: Geometry, weights: ConvertedWeights
) -> Tensor:
    """Return the input gradient for a stride of one: the convolution ``back`` of the gradient."""
    gradient = gradient.contiguous(memory_format=CHANNELS_LAST)
    rest = (back.dilation, back.groups)
    channels, width = shape[1], shape[4]
    if back.groups == 1 and channels <= _FEW and width % 2 == 0 and back.dilation[2] == 1:
        pairs: Tensor = _aten.mkldnn_convolution(
            gradient, weights.backward_paired(weight), None, back.padding, (1, 1, 2), *rest
        )
        apart: Tensor = pairs.movedim(1, 4).unflatten(4, (2, channels))
        return apart.flatten(3, 4).movedim(4, 1)
    padded: Tensor = _aten.mkldnn_convolution(
        gradient, weights.backward(weight, back.groups), None, back.padding, _ONES, *rest
    )
    return padded[:, :channels]


def _input_gradient(
    gradient: Tensor, shape: torch.Size, weight: Tensor, at: Geometry, weights: ConvertedWeights
) -> Tensor:
    """Return the input gradient for any stride; only the input's shape is needed."""
    rest = (at.stride, at.padding, at.dilation, False, _NO_PADDING, at.groups)
    mask = [True, False, False]  # gradients of input, weight, bias
    like = gradient.new_empty(1).expand(shape)
    if _backend(like, weight, None, rest).startswith("Slow"):
        opaque = torch.empty(shape, layout=torch._mkldnn)  # type: ignore[attr-defined]
        return _in_onednn(
            gradient,
            lambda g: _aten.convolution_backward(g, opaque, weight, None, *rest, mask)[0],
        )
    gradient = gradient.contiguous(memory_format=CHANNELS_LAST)
    like = torch.empty(shape, memory_format=CHANNELS_LAST)
    converted = weights.forward(weight)
    back: Tensor = _aten.convolution_backward(gradient, like, converted, None, *rest, mask)[0]
    return back


def _backend(x: Tensor, weight: Tensor, bias: Tensor | None, rest: tuple[Any, ...]) -> str:
    """Return the name of the backend that torch selects for a call."""
    selected = torch._C._select_conv_backend(x, weight, bias, *rest)
    # Some backends have no name in Python, such as oneDNN's for transposed convolutions.
    return str(selected.name)


def _in_onednn(x: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """Run a call in oneDNN that torch would run slowly: oneDNN's own layout leaves no choice."""
    return compute(x.contiguous().to_mkldnn()).to_dense()
