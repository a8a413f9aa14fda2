"""Conversion of nnU-Net's 2D configurations to networks of volumes, with kernels of one slice.

A 2D network applied to every slice equals a 3D network with kernels ``1 × k × k``: weights
``(O, I, k, k)`` become ``(O, I, 1, k, k)``. The volume then has a single prediction to explain, and
layer maps are volumes as for any 3D network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class SliceNorm(nn.InstanceNorm3d):
    """Instance norm with separate statistics for every slice along X.

    Examples
    --------
    >>> import torch
    >>> x = torch.rand(2, 4, 3, 6, 5)
    >>> flat = nn.InstanceNorm2d(4)(x[:, :, 1])
    >>> bool(torch.allclose(SliceNorm(4)(x)[:, :, 1], flat, atol=1e-5))
    True
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` ``(B, C, X, Y, Z)`` with each slice normalized."""
        batch, slices = x.shape[0], x.shape[2]
        separate = x.movedim(2, 1).flatten(0, 1).unsqueeze(2) if slices > 1 else x
        normed: Tensor = super().forward(separate)
        if slices > 1:
            normed = normed.squeeze(2).unflatten(0, (batch, slices)).movedim(1, 2)
        return normed


_VOLUME_OPERATIONS: Mapping[Any, type[nn.Module]] = {
    nn.Conv2d: nn.Conv3d,
    nn.InstanceNorm2d: SliceNorm,
    nn.BatchNorm2d: nn.BatchNorm3d,
    nn.Dropout2d: nn.Dropout3d,
}


def volume_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the arguments of a 2D network to those of its 3D equivalent.

    Raises
    ------
    ValueError
        If the convolutions are not 2D.

    Examples
    --------
    >>> volume_arguments({"conv_op": nn.Conv2d, "strides": [[1, 1], [2, 2]]})["strides"]
    [[1, 1, 1], [1, 2, 2]]
    """
    if arguments.get("conv_op") is not nn.Conv2d:
        raise ValueError("the patch size has two axes, so conv_op must be Conv2d")
    converted: dict[str, Any] = {}
    for name, value in arguments.items():
        converted[name] = _VOLUME_OPERATIONS.get(value, value) if isinstance(value, type) else value
    for name in {"kernel_sizes", "strides"} & converted.keys():
        converted[name] = [[1, *each] for each in converted[name]]
    return converted


def volume_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the weights of a 2D network to those of its 3D equivalent.

    Examples
    --------
    >>> import torch
    >>> volume_weights({"conv.weight": torch.zeros(8, 4, 3, 3)})["conv.weight"].shape
    torch.Size([8, 4, 1, 3, 3])
    """
    return {
        name: value.unsqueeze(2) if value.dim() == 4 else value for name, value in weights.items()
    }
