"""The two U-Nets that nnU-Net v2 trains, with its names, without its packages.

nnU-Net's own network classes come with a computer vision stack that replaces or breaks the pinned
torch, so they are built here: the same layers under the same names, and nothing beside them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

_TRANSPOSED: Mapping[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: nn.ConvTranspose2d, nn.Conv3d: nn.ConvTranspose3d,
}  # fmt: skip
_POOLED: Mapping[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: nn.AvgPool2d, nn.Conv3d: nn.AvgPool3d,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How a network is built; the keys of ``arch_kwargs`` in the plans.

    Raises
    ------
    ValueError
        If the stages do not agree.
    """

    n_stages: int
    features_per_stage: Sequence[int]
    conv_op: type[nn.Module]
    kernel_sizes: Sequence[Sequence[int]]
    strides: Sequence[Sequence[int]]
    n_conv_per_stage_decoder: Sequence[int]
    n_conv_per_stage: Sequence[int] = ()
    n_blocks_per_stage: Sequence[int] = ()
    conv_bias: bool = False
    norm_op: type[nn.Module] | None = None
    norm_op_kwargs: Mapping[str, Any] | None = None
    dropout_op: type[nn.Module] | None = None
    dropout_op_kwargs: Mapping[str, Any] | None = None
    nonlin: type[nn.Module] | None = None
    nonlin_kwargs: Mapping[str, Any] | None = None
    nonlin_first: bool = False
    stem_channels: int | None = None
    deep_supervision: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        per_stage = (self.features_per_stage, self.kernel_sizes, self.strides)
        encoder = self.n_conv_per_stage or self.n_blocks_per_stage
        if any(len(each) != self.n_stages for each in (*per_stage, encoder)):
            raise ValueError(f"not every list has {self.n_stages} entries, one a stage")
        if len(self.n_conv_per_stage_decoder) != self.n_stages - 1:
            raise ValueError(f"the decoder has not {self.n_stages - 1} stages")
        if self.conv_op not in _TRANSPOSED:
            raise ValueError(f"convolutions are {self.conv_op.__name__}")

    def unit(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        *,
        bias: bool | None = None,
        last: bool = False,
    ) -> nn.Sequential:
        """Return convolution, dropout, norm and activation; the ``last`` of a block stops early.

        What comes last in a residual block, and its projection, have neither dropout nor
        activation.
        """
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        padding = [(edge - 1) // 2 for edge in kernel]
        bias = self.conv_bias if bias is None else bias
        parts["conv"] = self.conv_op(
            inputs, outputs, list(kernel), list(stride), padding=padding, bias=bias
        )
        if self.dropout_op is not None and not last:
            parts["dropout"] = self.dropout_op(**(self.dropout_op_kwargs or {}))
        if self.norm_op is not None:
            parts["norm"] = self.norm_op(outputs, **(self.norm_op_kwargs or {}))
        if self.nonlin is not None and not last:
            parts["nonlin"] = self.activation()
            if self.nonlin_first and "norm" in parts:
                parts.move_to_end("norm")
        return nn.Sequential(parts)

    def activation(self) -> nn.Module:
        """Return a new activation."""
        return nn.Identity() if self.nonlin is None else self.nonlin(**(self.nonlin_kwargs or {}))


class _Stack(nn.Module):
    """Units one after the other; the first one has the stride."""

    def __init__(
        self, shape: Shape, count: int, inputs: int, outputs: int, stage: int, stride: Sequence[int]
    ) -> None:
        super().__init__()
        kernel = shape.kernel_sizes[stage]
        ones = [1] * len(kernel)
        first = shape.unit(inputs, outputs, kernel, stride)
        rest = [shape.unit(outputs, outputs, kernel, ones) for _ in range(count - 1)]
        self.convs = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.convs(x)
        return found


class _Residual(nn.Module):
    """Two units beside a shortcut: pooled where there is a stride, projected where it widens."""

    def __init__(
        self, shape: Shape, inputs: int, outputs: int, kernel: Sequence[int], stride: Sequence[int]
    ) -> None:
        super().__init__()
        ones = [1] * len(kernel)
        self.conv1 = shape.unit(inputs, outputs, kernel, stride)
        self.conv2 = shape.unit(outputs, outputs, kernel, ones, last=True)
        shortcut: list[nn.Module] = []
        if any(step != 1 for step in stride):
            shortcut.append(_POOLED[shape.conv_op](list(stride), list(stride)))
        if inputs != outputs:
            shortcut.append(shape.unit(inputs, outputs, ones, ones, bias=False, last=True))
        self.skip = nn.Sequential(*shortcut)
        self.nonlin2 = shape.activation()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.nonlin2(self.conv2(self.conv1(x)) + self.skip(x))
        return found


class _Blocks(nn.Module):
    def __init__(self, shape: Shape, count: int, inputs: int, outputs: int, stage: int) -> None:
        super().__init__()
        kernel, stride = shape.kernel_sizes[stage], shape.strides[stage]
        ones = [1] * len(kernel)
        first = _Residual(shape, inputs, outputs, kernel, stride)
        rest = [_Residual(shape, outputs, outputs, kernel, ones) for _ in range(count - 1)]
        self.blocks = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.blocks(x)
        return found


class _Encoder(nn.Module):
    def __init__(self, shape: Shape, inputs: int) -> None:
        super().__init__()
        self.stem: nn.Module | None = None
        widths = shape.features_per_stage
        if shape.n_blocks_per_stage:
            stem = shape.stem_channels or widths[0]
            self.stem = _Stack(shape, 1, inputs, stem, 0, [1] * len(shape.kernel_sizes[0]))
            inputs = stem
        stages: list[nn.Module] = []
        for stage, (outputs, stride) in enumerate(zip(widths, shape.strides, strict=True)):
            if shape.n_blocks_per_stage:
                count = shape.n_blocks_per_stage[stage]
                stages.append(_Blocks(shape, count, inputs, outputs, stage))
            else:
                count = shape.n_conv_per_stage[stage]
                stages.append(nn.Sequential(_Stack(shape, count, inputs, outputs, stage, stride)))
            inputs = outputs
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        if self.stem is not None:
            x = self.stem(x)
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return skips


class _Decoder(nn.Module):
    def __init__(self, shape: Shape, outputs: int) -> None:
        super().__init__()
        up = _TRANSPOSED[shape.conv_op]
        widths = shape.features_per_stage
        self.stages, self.transpconvs, self.seg_layers = (nn.ModuleList() for _ in range(3))
        for number, stage in enumerate(reversed(range(shape.n_stages - 1))):
            below, width, stride = widths[stage + 1], widths[stage], list(shape.strides[stage + 1])
            self.transpconvs.append(up(below, width, stride, stride, bias=shape.conv_bias))
            count, ones = shape.n_conv_per_stage_decoder[number], [1] * len(stride)
            self.stages.append(_Stack(shape, count, 2 * width, width, stage, ones))
            self.seg_layers.append(shape.conv_op(width, outputs, 1))

    def forward(self, skips: Sequence[Tensor]) -> Tensor:
        x = skips[-1]
        for up, stage, skip in zip(self.transpconvs, self.stages, skips[-2::-1], strict=True):
            x = stage(torch.cat([up(x), skip], dim=1))
        found: Tensor = self.seg_layers[-1](x)
        return found


class NNUNet(nn.Module):
    """nnU-Net's PlainConvUNet, or with residual blocks its ResidualEncoderUNet.

    Going up, only the full resolution's output is computed; those for deep supervision have
    weights, as in every checkpoint, but never run.

    References
    ----------
    F. Isensee et al., *Nature Methods* 18, 203–211 (2021), doi:10.1038/s41592-020-01008-z; F.
    Isensee et al., MICCAI 2024, arXiv:2404.09556 (residual encoders).

    Examples
    --------
    >>> shape = Shape(
    ...     n_stages=2, features_per_stage=[4, 8], conv_op=nn.Conv2d, kernel_sizes=[[3, 3]] * 2,
    ...     strides=[[1, 1], [2, 2]], n_conv_per_stage=[1, 1], n_conv_per_stage_decoder=[1],
    ... )
    >>> NNUNet(shape, 3, 5)(torch.zeros(1, 3, 6, 8)).shape
    torch.Size([1, 5, 6, 8])
    """

    def __init__(self, shape: Shape, inputs: int, outputs: int) -> None:
        super().__init__()
        self.encoder = _Encoder(shape, inputs)
        self.decoder = _Decoder(shape, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(B, K, *S)``."""
        found: Tensor = self.decoder(self.encoder(x))
        return found


def own_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a checkpoint's weights by one name each; nnU-Net keeps most under two or four.

    Examples
    --------
    >>> one = torch.zeros(1)
    >>> names = ("encoder.a.conv.bias", "encoder.a.all_modules.0.bias")
    >>> list(own_names(dict.fromkeys([*names, f"decoder.{names[0]}"], one)))
    ['encoder.a.conv.bias']
    """
    return {
        name: value
        for name, value in state.items()
        if ".all_modules." not in name and not name.startswith("decoder.encoder.")
    }
