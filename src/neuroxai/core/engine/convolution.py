r"""3D convolutions on the CPU, channels last: the same answer as stock torch, sooner and leaner.

Stock torch has three weaknesses here (torch 2.13, measured in ``benchmarks/convolutions.py``).
A batch of one with few voxels goes through ``slow_conv3d``, one matrix product after another. A
large one goes through oneDNN with the channels first, which has to be turned round on the way in
and out. And the input is kept for the gradient of weights that are frozen. Here every convolution
goes through oneDNN with the channels last (``torch.channels_last_3d``), and only the weights are
kept: the gradient of the input,

.. math:: \frac{\partial S}{\partial x} = \sum_k \frac{\partial S}{\partial y_k} \star w_k,

is for a stride of one itself a convolution, of the output's gradient with the flipped weights.
oneDNN counts in eights of channels: of ten or twelve, as where a U-Net joins its input to what it
decoded, sixteen are sooner made, and of the one to four of an image two neighbors along the width
are made at once, as twice the channels of every other voxel.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

CHANNELS_LAST = torch.channels_last_3d

_aten = torch.ops.aten
_Triple = tuple[int, int, int]
_ONES: _Triple = (1, 1, 1)
_NO_PADDING: _Triple = (0, 0, 0)
_Way = Literal["forward", "backward", "backward, paired"]
_State = tuple[int, int]
"""Of a weight: its version, and where it lies."""
_LANES = 8
_FEW = 4
"""Channels that leave half of a vector empty."""


@dataclass(frozen=True)
class Geometry:
    """How a kernel moves over an image; every triple is depth, height, width."""

    stride: _Triple
    padding: _Triple
    dilation: _Triple
    groups: int = 1
    output_padding: _Triple = _NO_PADDING
    """Of a transposed convolution."""


class LaidWeights:
    """Weights as the kernels want them, made once and kept for as long as this and they live.

    Weights that a network computes in every pass, as weight norm does, go with their pass.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, _Way], tuple[weakref.ref[Tensor], _State, Tensor]] = {}

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weights with the channels last."""
        return self._get(weight, "forward", lambda plain: plain)

    def backward(self, weight: Tensor, groups: int) -> Tensor:
        """Return the weights of the convolution that takes the output's gradient to the input's.

        Flipped along every spatial axis, input and output channels exchanged within each group,
        and of one group rounded up to whole eights with channels of zeros.
        """

        def turned(plain: Tensor) -> Tensor:
            flipped = _flipped(plain, groups)
            more = -len(flipped) % _LANES if groups == 1 and len(flipped) > _LANES else 0
            return functional.pad(flipped, (0, 0) * 4 + (0, more))

        return self._get(weight, "backward", turned)

    def backward_paired(self, weight: Tensor) -> Tensor:
        """Return the same for two neighbors along the width at once, first channel after channel.

        The second one's weights are the first one's, a voxel further.
        """

        def paired(plain: Tensor) -> Tensor:
            flipped = _flipped(plain, 1)
            return torch.cat([functional.pad(flipped, (0, 1)), functional.pad(flipped, (1, 0))])

        return self._get(weight, "backward, paired", paired)

    def _get(self, weight: Tensor, way: _Way, made: Callable[[Tensor], Tensor]) -> Tensor:
        key, state = (id(weight), way), (weight._version, weight.data_ptr())
        found = self._kept.get(key)
        if found is not None and found[0]() is weight and found[1] == state:
            return found[2]
        laid = made(weight.detach()).contiguous(memory_format=CHANNELS_LAST)
        # An id is only as good as its object lives.
        self._kept[key] = (weakref.ref(weight, partial(self._forget, key)), state, laid)
        return laid

    def _forget(self, key: tuple[int, _Way], gone: weakref.ref[Tensor]) -> None:
        kept = self._kept.get(key)
        if kept is not None and kept[0] is gone:
            del self._kept[key]


def _flipped(weight: Tensor, groups: int) -> Tensor:
    exchanged: Tensor = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    return exchanged.flip(2, 3, 4)


def triple(value: int | Sequence[int]) -> _Triple:
    """Return one number for all three axes, or three, as three.

    Examples
    --------
    >>> triple(2), triple((1, 2, 3)), triple([4])
    ((2, 2, 2), (1, 2, 3), (4, 4, 4))
    """
    values = (value,) if isinstance(value, int) else tuple(int(n) for n in value)
    first, *rest = values * 3 if len(values) == 1 else values
    return (first, rest[0], rest[1])


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, at: Geometry, laid: LaidWeights
) -> Tensor:
    """Return ``conv3d`` of ``x`` ``(B, C, D, H, W)``, with the channels last.

    Weights and bias are taken as frozen.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        given: Tensor = _Convolution.apply(x, weight, bias, at, laid)  # type: ignore[no-untyped-call]
        return given
    return _forward(x, weight, bias, at, laid)


def convolve_transposed(
    x: Tensor, weight: Tensor, bias: Tensor | None, at: Geometry, laid: LaidWeights
) -> Tensor:
    """Return ``conv_transpose3d`` of ``x`` ``(B, C, D, H, W)``.

    Weights and bias are taken as frozen.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        given: Tensor = _Transposed.apply(x, weight, bias, at, laid)  # type: ignore[no-untyped-call]
        return given
    return _forward_transposed(x, weight, bias, at, laid)


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, at: Geometry, laid: LaidWeights
) -> Tensor:
    x = x.contiguous(memory_format=CHANNELS_LAST)
    weight = laid.forward(weight)
    y: Tensor = _aten.mkldnn_convolution(
        x, weight, bias, at.padding, at.stride, at.dilation, at.groups
    )
    return y


def _forward_transposed(
    x: Tensor, weight: Tensor, bias: Tensor | None, at: Geometry, laid: LaidWeights
) -> Tensor:
    rest = (at.stride, at.padding, at.dilation, True, at.output_padding, at.groups)
    if _backend(x, weight, bias, rest).startswith("Slow"):
        return _through_onednn(x, lambda opaque: _aten.convolution(opaque, weight, bias, *rest))
    x = x.contiguous(memory_format=CHANNELS_LAST)
    y: Tensor = _aten.convolution(x, laid.forward(weight), bias, *rest)
    return y


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, at: Geometry, laid: LaidWeights
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.at, ctx.laid = x.shape, at, laid
        return _forward(x, weight, bias, at, laid)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weight,) = ctx.saved_tensors
        at: Geometry = ctx.at
        reach = [d * (k - 1) for d, k in zip(at.dilation, weight.shape[2:], strict=True)]
        border = tuple(r - p for r, p in zip(reach, at.padding, strict=True))
        if at.stride == _ONES and min(border) >= 0:
            unit = Geometry(_ONES, (border[0], border[1], border[2]), at.dilation, at.groups)
            back = _unit_input_gradient(gradient, ctx.shape, weight, unit, ctx.laid)
        else:
            back = _input_gradient(gradient, ctx.shape, weight, at, ctx.laid)
        return back, None, None, None, None


class _Transposed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, at: Geometry, laid: LaidWeights
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.at, ctx.laid = at, laid
        return _forward_transposed(x, weight, bias, at, laid)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weight,) = ctx.saved_tensors
        # A transposed convolution is a convolution's gradient; its own is that convolution.
        return _forward(gradient, weight, None, ctx.at, ctx.laid), None, None, None, None


def _unit_input_gradient(
    gradient: Tensor, shape: torch.Size, weight: Tensor, back: Geometry, laid: LaidWeights
) -> Tensor:
    """Return the gradient of the input of a convolution of stride one; ``back`` leads to it."""
    gradient = gradient.contiguous(memory_format=CHANNELS_LAST)
    rest = (back.dilation, back.groups)
    channels, width = shape[1], shape[4]
    if back.groups == 1 and channels <= _FEW and width % 2 == 0 and back.dilation[2] == 1:
        pairs: Tensor = _aten.mkldnn_convolution(
            gradient, laid.backward_paired(weight), None, back.padding, (1, 1, 2), *rest
        )
        apart: Tensor = pairs.movedim(1, 4).unflatten(4, (2, channels))
        return apart.flatten(3, 4).movedim(4, 1)
    whole: Tensor = _aten.mkldnn_convolution(
        gradient, laid.backward(weight, back.groups), None, back.padding, _ONES, *rest
    )
    return whole[:, :channels]


def _input_gradient(
    gradient: Tensor, shape: torch.Size, weight: Tensor, at: Geometry, laid: LaidWeights
) -> Tensor:
    """Return the gradient of a strided convolution's input, whose values are not needed."""
    rest = (at.stride, at.padding, at.dilation, False, _NO_PADDING, at.groups)
    wanted = [True, False, False]
    like = gradient.new_empty(1).expand(shape)
    if _backend(like, weight, None, rest).startswith("Slow"):
        opaque = torch.empty(shape, layout=torch._mkldnn)  # type: ignore[attr-defined]
        return _through_onednn(
            gradient,
            lambda g: _aten.convolution_backward(g, opaque, weight, None, *rest, wanted)[0],
        )
    gradient = gradient.contiguous(memory_format=CHANNELS_LAST)
    like = torch.empty(shape, memory_format=CHANNELS_LAST)
    back: Tensor = _aten.convolution_backward(
        gradient, like, laid.forward(weight), None, *rest, wanted
    )[0]
    return back


def _backend(x: Tensor, weight: Tensor, bias: Tensor | None, rest: tuple[Any, ...]) -> str:
    """Return torch's own choice for a call."""
    chosen = torch._C._select_conv_backend(x, weight, bias, *rest)
    # A new backend may have no name in Python; oneDNN's for transposed ones has none.
    return str(chosen.name)


def _through_onednn(x: Tensor, work: Any) -> Tensor:
    """Have oneDNN do what torch would do slowly: it never declines a tensor of its own layout."""
    dense: Tensor = work(x.contiguous().to_mkldnn()).to_dense()
    return dense
