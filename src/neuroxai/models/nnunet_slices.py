"""nnU-Net's 2D configurations, as networks over a volume whose kernels are one slice thick.

A 2D network that answers every slice by itself is, to the number, a 3D one with kernels
``1 × k × k``: weights ``(O, I, k, k)`` become ``(O, I, 1, k, k)``. The whole volume's answer is
then one answer to be explained, and a layer's map lies in the volume as any other does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class SliceNorm(nn.InstanceNorm3d):
    """Instance norm of every slice ``(B, C, :, Y, Z)`` by its own statistics.

    Examples
    --------
    >>> import torch
    >>> x = torch.rand(2, 4, 3, 6, 5)
    >>> flat = nn.InstanceNorm2d(4)(x[:, :, 1])
    >>> bool(torch.allclose(SliceNorm(4)(x)[:, :, 1], flat, atol=1e-5))
    True
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` ``(B, C, X, Y, Z)`` with each of its slices normed."""
        batch, slices = x.shape[0], x.shape[2]
        apart = x.movedim(2, 1).flatten(0, 1).unsqueeze(2) if slices > 1 else x
        normed: Tensor = super().forward(apart)
        if slices > 1:
            normed = normed.squeeze(2).unflatten(0, (batch, slices)).movedim(1, 2)
        return normed


_THICK: Mapping[Any, type[nn.Module]] = {
    nn.Conv2d: nn.Conv3d,
    nn.InstanceNorm2d: SliceNorm,
    nn.BatchNorm2d: nn.BatchNorm3d,
    nn.Dropout2d: nn.Dropout3d,
}


def thickened(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a 2D network is built with, for its counterpart over a volume.

    Raises
    ------
    ValueError
        If its convolutions are not 2D.

    Examples
    --------
    >>> thickened({"conv_op": nn.Conv2d, "strides": [[1, 1], [2, 2]]})["strides"]
    [[1, 1, 1], [1, 2, 2]]
    """
    if arguments.get("conv_op") is not nn.Conv2d:
        raise ValueError("its patch is a slice's, and its convolutions are not Conv2d")
    made: dict[str, Any] = {}
    for name, value in arguments.items():
        made[name] = _THICK.get(value, value) if isinstance(value, type) else value
    for name in {"kernel_sizes", "strides"} & made.keys():
        made[name] = [[1, *each] for each in made[name]]
    return made


def thick_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a 2D network's weights for its counterpart over a volume.

    Examples
    --------
    >>> import torch
    >>> thick_weights({"conv.weight": torch.zeros(8, 4, 3, 3)})["conv.weight"].shape
    torch.Size([8, 4, 1, 3, 3])
    """
    return {
        name: value.unsqueeze(2) if value.dim() == 4 else value for name, value in weights.items()
    }
