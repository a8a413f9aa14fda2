"""DeepSeg, the segmentation network of the paper."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuroxai.core.errors import ModelError
from neuroxai.models.counts import check_counts

_CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_DROPOUT = {2: nn.Dropout2d, 3: nn.Dropout3d}


class DeepSeg(nn.Module):
    """Encoder–decoder for tumor segmentation; returns logits ``(B, K, X, Y, Z)``.

    Level ``l = 0 … depth − 1`` has ``filters · 2^l`` filters. An encoder level is twice
    convolution 3×3×3 – batch norm – ReLU, then max pooling by 2. The bottleneck is a spatial
    dropout. A decoder level is a convolution 2×2×2 (padded by one at the end of each axis) –
    norm – ReLU, nearest upsampling by 2, concatenation with the skip, and twice convolution
    3×3×3 – norm – ReLU. The skip is the **input** of the encoder level, so the first skip is the
    image. With the paper's depth of 5 and 8 filters, the network has 26 convolutions, 2.6 million
    parameters and, for four channels of 128³, 57.3 GFLOP (two per multiplication).

    Images whose size is not a multiple of ``2^depth`` are padded with zeros at the end of each
    axis, and the output is cropped.

    Parameters
    ----------
    in_channels
        Number of modalities C.
    out_channels
        Number of classes K, including the background.
    filters, depth
        Filters of the first level, and number of levels.
    spatial_dims
        3 for volumes ``(B, C, X, Y, Z)``, 2 for slices ``(B, C, X, Y)``.
    dropout
        Probability of dropping a feature map of the bottleneck during training.

    Raises
    ------
    ModelError
        If an argument is out of range, or an input does not have the shape ``(B, C, *S)``.

    References
    ----------
    Zeineldin et al. 2020, doi:10.1007/s11548-020-02186-z (DeepSeg);
    Zeineldin et al. 2022, doi:10.1007/s11548-022-02619-x (Fig. 2).

    Examples
    --------
    >>> network = DeepSeg(in_channels=1, out_channels=4, filters=2, depth=2).eval()
    >>> network(torch.zeros(1, 1, 6, 8, 5)).shape
    torch.Size([1, 4, 6, 8, 5])
    """

    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 4,
        *,
        filters: int = 8,
        depth: int = 5,
        spatial_dims: int = 3,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if spatial_dims not in _CONVOLUTION:
            raise ModelError(f"DeepSeg: spatial_dims is {spatial_dims!r}, expected 2 or 3")
        counts = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "filters": filters,
            "depth": depth,
        }
        check_counts("DeepSeg", counts)
        self.in_channels = in_channels
        self.spatial_dims = spatial_dims
        self.divisor = 2**depth

        widths = [filters * 2**level for level in range(depth)]
        skips = [in_channels, *widths[:-1]]
        self.encoder = nn.ModuleList(
            _Down(skip, width, spatial_dims) for skip, width in zip(skips, widths, strict=True)
        )
        self.bottom = _DROPOUT[spatial_dims](dropout)
        # A dictionary, so that modules() names the levels in the order of execution.
        incoming = [*widths[1:], widths[-1]]
        self.decoder = nn.ModuleDict(
            {
                str(level): _Up(incoming[level], skips[level], widths[level], spatial_dims)
                for level in reversed(range(depth))
            }
        )
        self.output = _CONVOLUTION[spatial_dims](filters, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(B, K, *S)`` for images ``(B, C, *S)``."""
        if x.ndim != self.spatial_dims + 2 or x.shape[1] != self.in_channels:
            axes = "X, Y, Z"[: 3 * self.spatial_dims - 2]
            raise ModelError(
                f"DeepSeg: got an input of shape {tuple(x.shape)}, "
                f"expected (B, {self.in_channels}, {axes})"
            )
        shape = x.shape[2:]
        if self.padded_shape(shape) != tuple(shape):
            x = functional.pad(x, self._padding(shape))
        skips: list[Tensor] = []
        for down in self.encoder:
            skips.append(x)
            x = down(x)
        x = self.bottom(x)
        for up in self.decoder.values():
            x = up(x, skips.pop())
        logits: Tensor = self.output(x)
        for axis, size in enumerate(shape, start=2):
            if logits.shape[axis] != size:
                logits = logits.narrow(axis, 0, size)
        return logits

    def padded_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the grid that an image of ``shape`` is padded to.

        Examples
        --------
        >>> DeepSeg(depth=2).padded_shape((6, 8, 5))
        (8, 8, 8)
        """
        return tuple(size + -size % self.divisor for size in shape)

    def _padding(self, shape: torch.Size) -> list[int]:
        """Return the padding of each axis, last axis first, as ``functional.pad`` expects it."""
        ends = [whole - size for whole, size in zip(self.padded_shape(shape), shape, strict=True)]
        return [side for end in reversed(ends) for side in (0, end)]


class _Down(nn.Module):
    """Encoder level: two convolutions and max pooling."""

    def __init__(self, channels: int, width: int, dims: int) -> None:
        super().__init__()
        self.conv1 = _CONVOLUTION[dims](channels, width, kernel_size=3, padding=1)
        self.norm1 = _NORM[dims](width)
        self.relu1 = nn.ReLU()
        self.conv2 = _CONVOLUTION[dims](width, width, kernel_size=3, padding=1)
        self.norm2 = _NORM[dims](width)
        self.relu2 = nn.ReLU()
        self.pool = _POOL[dims](2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.norm1(self.conv1(x)))
        x = self.relu2(self.norm2(self.conv2(x)))
        pooled: Tensor = self.pool(x)
        return pooled


class _Up(nn.Module):
    """Decoder level: upsampling, concatenation with the skip, and two convolutions."""

    def __init__(self, channels: int, skip: int, width: int, dims: int) -> None:
        super().__init__()
        self._end = [0, 1] * dims
        self.up = _CONVOLUTION[dims](channels, width, kernel_size=2)
        self.up_norm = _NORM[dims](width)
        self.up_relu = nn.ReLU()
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.conv1 = _CONVOLUTION[dims](width + skip, width, kernel_size=3, padding=1)
        self.norm1 = _NORM[dims](width)
        self.relu1 = nn.ReLU()
        self.conv2 = _CONVOLUTION[dims](width, width, kernel_size=3, padding=1)
        self.norm2 = _NORM[dims](width)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        # padding="same" pads the same side, but warns about even kernels.
        x = self.up(functional.pad(x, self._end))
        x = self.upsample(self.up_relu(self.up_norm(x)))
        x = torch.cat([x, skip], dim=1)
        x = self.relu1(self.norm1(self.conv1(x)))
        refined: Tensor = self.relu2(self.norm2(self.conv2(x)))
        return refined
