"""The U-Nets of nnU-Net v2, reimplemented with the same layer names.

The package of nnU-Net's network classes depends on libraries that conflict with the supported
versions of PyTorch.
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
class Architecture:
    """Architecture of a network: ``arch_kwargs`` in the plans.

    Raises
    ------
    ValueError
        If the lists disagree in length, or the convolutions are not 2D or 3D.
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
            raise ValueError(f"expected {self.n_stages} entries in every list, one per stage")
        if len(self.n_conv_per_stage_decoder) != self.n_stages - 1:
            raise ValueError(f"expected {self.n_stages - 1} stages in the decoder")
        if self.conv_op not in _TRANSPOSED:
            raise ValueError(f"convolutions are {self.conv_op.__name__}, expected Conv2d or Conv3d")

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
        """Build a unit of convolution, dropout, norm and activation.

        The ``last`` unit of a residual block and its projection have neither dropout nor
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
        """Build an activation."""
        return nn.Identity() if self.nonlin is None else self.nonlin(**(self.nonlin_kwargs or {}))


class _Stack(nn.Module):
    """Sequence of units; the first one has the stride."""

    def __init__(
        self,
        architecture: Architecture,
        count: int,
        inputs: int,
        outputs: int,
        stage: int,
        stride: Sequence[int],
    ) -> None:
        super().__init__()
        kernel = architecture.kernel_sizes[stage]
        ones = [1] * len(kernel)
        first = architecture.unit(inputs, outputs, kernel, stride)
        rest = [architecture.unit(outputs, outputs, kernel, ones) for _ in range(count - 1)]
        self.convs = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.convs(x)
        return output


class _Residual(nn.Module):
    """Residual block; its shortcut is pooled if strided, and projected if the width changes."""

    def __init__(
        self,
        architecture: Architecture,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        stride: Sequence[int],
    ) -> None:
        super().__init__()
        ones = [1] * len(kernel)
        self.conv1 = architecture.unit(inputs, outputs, kernel, stride)
        self.conv2 = architecture.unit(outputs, outputs, kernel, ones, last=True)
        shortcut: list[nn.Module] = []
        if any(step != 1 for step in stride):
            shortcut.append(_POOLED[architecture.conv_op](list(stride), list(stride)))
        if inputs != outputs:
            shortcut.append(architecture.unit(inputs, outputs, ones, ones, bias=False, last=True))
        self.skip = nn.Sequential(*shortcut)
        self.nonlin2 = architecture.activation()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.nonlin2(self.conv2(self.conv1(x)) + self.skip(x))
        return output


class _Blocks(nn.Module):
    """Sequence of residual blocks; the first one has the stride."""

    def __init__(
        self, architecture: Architecture, count: int, inputs: int, outputs: int, stage: int
    ) -> None:
        super().__init__()
        kernel, stride = architecture.kernel_sizes[stage], architecture.strides[stage]
        ones = [1] * len(kernel)
        first = _Residual(architecture, inputs, outputs, kernel, stride)
        rest = [_Residual(architecture, outputs, outputs, kernel, ones) for _ in range(count - 1)]
        self.blocks = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.blocks(x)
        return output


class _Encoder(nn.Module):
    """Encoder; returns the output of every stage."""

    def __init__(self, architecture: Architecture, inputs: int) -> None:
        super().__init__()
        self.stem: nn.Module | None = None
        widths = architecture.features_per_stage
        if architecture.n_blocks_per_stage:
            stem = architecture.stem_channels or widths[0]
            self.stem = _Stack(
                architecture, 1, inputs, stem, 0, [1] * len(architecture.kernel_sizes[0])
            )
            inputs = stem
        stages: list[nn.Module] = []
        for stage, (outputs, stride) in enumerate(zip(widths, architecture.strides, strict=True)):
            if architecture.n_blocks_per_stage:
                count = architecture.n_blocks_per_stage[stage]
                stages.append(_Blocks(architecture, count, inputs, outputs, stage))
            else:
                count = architecture.n_conv_per_stage[stage]
                stages.append(
                    nn.Sequential(_Stack(architecture, count, inputs, outputs, stage, stride))
                )
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
    """Decoder with transposed convolutions; returns logits of the full resolution."""

    def __init__(self, architecture: Architecture, outputs: int) -> None:
        super().__init__()
        up = _TRANSPOSED[architecture.conv_op]
        widths = architecture.features_per_stage
        self.stages, self.transpconvs, self.seg_layers = (nn.ModuleList() for _ in range(3))
        for number, stage in enumerate(reversed(range(architecture.n_stages - 1))):
            below, width, stride = (
                widths[stage + 1],
                widths[stage],
                list(architecture.strides[stage + 1]),
            )
            self.transpconvs.append(up(below, width, stride, stride, bias=architecture.conv_bias))
            count, ones = architecture.n_conv_per_stage_decoder[number], [1] * len(stride)
            self.stages.append(_Stack(architecture, count, 2 * width, width, stage, ones))
            self.seg_layers.append(architecture.conv_op(width, outputs, 1))

    def forward(self, skips: Sequence[Tensor]) -> Tensor:
        x = skips[-1]
        for up, stage, skip in zip(self.transpconvs, self.stages, skips[-2::-1], strict=True):
            x = stage(torch.cat([up(x), skip], dim=1))
        output: Tensor = self.seg_layers[-1](x)
        return output


class NNUNet(nn.Module):
    """nnU-Net's PlainConvUNet, or its ResidualEncoderUNet if there are residual blocks.

    The layers for deep supervision exist, because checkpoints contain their weights, but only the
    output of the full resolution is computed.

    References
    ----------
    F. Isensee et al., *Nature Methods* 18, 203–211 (2021), doi:10.1038/s41592-020-01008-z; F.
    Isensee et al., MICCAI 2024, arXiv:2404.09556 (residual encoders).

    Examples
    --------
    >>> architecture = Architecture(
    ...     n_stages=2, features_per_stage=[4, 8], conv_op=nn.Conv2d, kernel_sizes=[[3, 3]] * 2,
    ...     strides=[[1, 1], [2, 2]], n_conv_per_stage=[1, 1], n_conv_per_stage_decoder=[1],
    ... )
    >>> NNUNet(architecture, 3, 5)(torch.zeros(1, 3, 6, 8)).shape
    torch.Size([1, 5, 6, 8])
    """

    def __init__(self, architecture: Architecture, inputs: int, outputs: int) -> None:
        super().__init__()
        self.encoder = _Encoder(architecture, inputs)
        self.decoder = _Decoder(architecture, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(B, K, *S)``."""
        output: Tensor = self.decoder(self.encoder(x))
        return output


def unique_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove duplicates from a state dict; nnU-Net stores most tensors under two or four names.

    Examples
    --------
    >>> one = torch.zeros(1)
    >>> names = ("encoder.a.conv.bias", "encoder.a.all_modules.0.bias")
    >>> list(unique_names(dict.fromkeys([*names, f"decoder.{names[0]}"], one)))
    ['encoder.a.conv.bias']
    """
    return {
        name: value
        for name, value in state.items()
        if ".all_modules." not in name and not name.startswith("decoder.encoder.")
    }
