"""ResNet-50 with the head of the paper's Table 1, for tumor grading."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuroxai.core.errors import ModelError
from neuroxai.models.counts import check_counts


class ResNet50(nn.Module):
    """ResNet-50 classifier of slices ``(B, C, X, Y)``; returns logits ``(B, K)``.

    The backbone is "version 1.5", with the stride on the 3×3 convolution. Its parameters are named
    ``conv1, bn1, layer1 … layer4`` as in torchvision, so torchvision's weights can be loaded. The
    head is Table 1 of the paper: average pooling to 2×2, flattening, a dense layer of 256 with
    ReLU, dropout, a dense layer of K.

    The table lists 512 feature maps and 2048 flattened values (512 · 2 · 2). A ResNet-50 ends in
    2048 maps; 512 is the width *inside* its last bottlenecks, and of the last maps of ResNet-18
    and -34. We follow the architecture, not the table: the flattened vector has
    2048 · 2 · 2 = 8192 values.

    Parameters
    ----------
    in_channels
        Number of modalities C; the paper repeats FLAIR three times.
    out_channels
        Number of classes K.
    dropout
        Probability of dropping a value of the dense layer during training.

    Raises
    ------
    ModelError
        If an argument is out of range, or an input does not have the shape ``(B, C, X, Y)``.

    References
    ----------
    He et al. 2016, doi:10.1109/CVPR.2016.90; Zeineldin et al. 2022,
    doi:10.1007/s11548-022-02619-x, Table 1. The scale of each block's last norm is initialized to
    zero, so that every block starts as the identity: Goyal et al. 2017, arXiv:1706.02677.

    Examples
    --------
    >>> network = ResNet50(in_channels=1, out_channels=2).eval()
    >>> network(torch.zeros(1, 1, 40, 48)).shape
    torch.Size([1, 2])
    """

    def __init__(
        self, in_channels: int = 3, out_channels: int = 2, *, dropout: float = 0.5
    ) -> None:
        super().__init__()
        check_counts("ResNet50", {"in_channels": in_channels, "out_channels": out_channels})
        self.in_channels = in_channels
        self.conv1 = nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _stage(64, 64, blocks=3, stride=1)
        self.layer2 = _stage(256, 128, blocks=4, stride=2)
        self.layer3 = _stage(512, 256, blocks=6, stride=2)
        self.layer4 = _stage(1024, 512, blocks=3, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.dense1 = nn.Linear(2048 * 2 * 2, 256)
        self.dense1_relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.dense2 = nn.Linear(256, out_channels)
        self._initialize()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(B, K)`` for slices ``(B, C, X, Y)``."""
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ModelError(
                f"ResNet50: got an input of shape {tuple(x.shape)}, "
                f"expected (B, {self.in_channels}, X, Y)"
            )
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = torch.flatten(self.pool(x), start_dim=1)
        logits: Tensor = self.dense2(self.dropout(self.dense1_relu(self.dense1(x))))
        return logits

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, _Bottleneck):
                nn.init.zeros_(module.bn3.weight)


class _Bottleneck(nn.Module):
    """Residual block of 1×1, 3×3 and 1×1 convolutions."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * self.expansion
        self.conv1 = nn.Conv2d(channels, width, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, out, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu3 = nn.ReLU()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(out),
            )

    def forward(self, x: Tensor) -> Tensor:
        residual = self.relu1(self.bn1(self.conv1(x)))
        residual = self.relu2(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        activated: Tensor = self.relu3(residual + self.downsample(x))
        return activated


def _stage(channels: int, width: int, *, blocks: int, stride: int) -> nn.Sequential:
    """Build a stage of bottlenecks; the first one changes width and resolution."""
    out = width * _Bottleneck.expansion
    rest = (_Bottleneck(out, width, 1) for _ in range(blocks - 1))
    return nn.Sequential(_Bottleneck(channels, width, stride), *rest)
