"""Pre-activation ResNet-50 (version 2), the classifier of the paper's published code."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from neuroxai.core.errors import ModelError
from neuroxai.models.counts import check_counts

_EPSILON = 1.001e-5
"""Epsilon of batch norms in ``keras.applications.ResNet50V2``."""
_STAGES = ((64, 3, 2), (128, 4, 2), (256, 6, 2), (512, 3, 1))
"""Width, blocks and stride of each stage; the stride is its last block's."""


class ResNet50V2(nn.Module):
    """Pre-activation ResNet-50 classifier of slices ``(B, C, X, Y)``; returns logits ``(B, K)``.

    The backbone is that of ``keras.applications.ResNet50V2``: a first convolution with bias and
    without norm, norm and ReLU before each convolution of a block, the stride in a stage's last
    block, zero padding before the first pooling. The head is that of the paper's published code:
    average pooling over 3×3, flattening, a dense layer of 256 with ReLU, dropout, a dense layer of
    K. For slices of 224×224 the pooling reduces 7×7 cells to 2×2, as in the paper's Table 1.

    Parameters
    ----------
    in_channels
        Number of modalities C.
    out_channels
        Number of classes K.
    size
        Edge of the square slices in pixels; it determines the input size of the dense layer.
    dropout
        Probability of dropping a value of the dense layer during training.

    Raises
    ------
    ModelError
        If an argument is out of range, or an input does not have the shape ``(B, C, size, size)``.

    References
    ----------
    He et al. 2016, arXiv:1603.05027; Zeineldin et al. 2022, doi:10.1007/s11548-022-02619-x.

    Examples
    --------
    >>> import torch
    >>> network = ResNet50V2(in_channels=1, size=96).eval()
    >>> network(torch.zeros(1, 1, 96, 96)).shape
    torch.Size([1, 2])
    """

    def __init__(
        self, in_channels: int = 3, out_channels: int = 2, *, size: int = 224, dropout: float = 0.5
    ) -> None:
        super().__init__()
        check_counts("ResNet50V2", {"in_channels": in_channels, "out_channels": out_channels})
        check_counts("ResNet50V2", {"size": size}, least=65)
        self.in_channels, self.size = in_channels, size
        self.conv1 = nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3)
        self.pool1 = nn.MaxPool2d(kernel_size=3, stride=2)
        blocks: list[nn.Module] = []
        channels = 64
        for width, count, stride in _STAGES:
            for number in range(count):
                last = number == count - 1
                blocks.append(_Block(channels, width, stride if last else 1, first=number == 0))
                channels = 4 * width
        self.blocks = nn.ModuleList(blocks)
        self.post_norm = nn.BatchNorm2d(channels, eps=_EPSILON)
        self.post_relu = nn.ReLU()
        self.pool = nn.AvgPool2d(3)
        cells = -(-size // 32) // 3
        self.dense1 = nn.Linear(channels * cells * cells, 256)
        self.dense1_relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.dense2 = nn.Linear(256, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(B, K)`` for slices ``(B, C, size, size)``."""
        if x.ndim != 4 or x.shape[1:] != (self.in_channels, self.size, self.size):
            raise ModelError(
                f"ResNet50V2: got an input of shape {tuple(x.shape)}, "
                f"expected (B, {self.in_channels}, {self.size}, {self.size})"
            )
        # Pads with zeros, unlike the pooling's own padding: values can still be negative here.
        x = self.pool1(functional.pad(self.conv1(x), (1, 1, 1, 1)))
        for block in self.blocks:
            x = block(x)
        x = self.pool(self.post_relu(self.post_norm(x))).flatten(1)
        logits: Tensor = self.dense2(self.dropout(self.dense1_relu(self.dense1(x))))
        return logits


class _Block(nn.Module):
    """Pre-activation residual block of 1×1, 3×3 and 1×1 convolutions."""

    def __init__(self, channels: int, width: int, stride: int, *, first: bool) -> None:
        super().__init__()
        self.norm0 = nn.BatchNorm2d(channels, eps=_EPSILON)
        self.relu0 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if first:
            self.shortcut = nn.Conv2d(channels, 4 * width, kernel_size=1, stride=stride)
        elif stride > 1:
            self.shortcut = nn.MaxPool2d(kernel_size=1, stride=stride)
        self.first = first
        self.conv1 = nn.Conv2d(channels, width, kernel_size=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width, eps=_EPSILON)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width, eps=_EPSILON)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, 4 * width, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu0(self.norm0(x))
        shortcut = self.shortcut(activated if self.first else x)
        residual = self.relu1(self.norm1(self.conv1(activated)))
        residual = self.conv3(self.relu2(self.norm2(self.conv2(residual))))
        total: Tensor = residual + shortcut
        return total
