"""Where a network predicts a target, and whether its output looks like probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from neuroxai.core.errors import TargetError
from neuroxai.core.spatial import per_sample, spatial_shape
from neuroxai.core.target.outputs import Outputs

_SUM_TOLERANCE = 1e-3
"""How far softmax probabilities may sum from one: a thousand times single precision."""


def predicted_mask(outputs: Outputs, channels: Tensor, output: Tensor) -> Tensor:
    """Return where a target of ``channels`` ``(B, n)`` is predicted, ``(B, *S)`` bool.

    Among exclusive classes, the largest logit wins. Overlapping classes are predicted above a
    probability of 0.5.

    Raises
    ------
    TargetError
        If a single output channel may be a logit or a probability.

    Examples
    --------
    >>> output = torch.tensor([[[0.0, 2.0, 1.0], [1.0, 1.0, 3.0]]])
    >>> predicted_mask(Outputs(), torch.tensor([[1]]), output).tolist()
    [[True, False, True]]
    """
    single = output.shape[1] == 1
    if single and outputs.activation is None and not outputs.activated and in_unit_range(output):
        raise TargetError(
            "the network's only output channel lies between 0 and 1, so it may be a logit or a "
            "probability: to restrict a target to the prediction, give "
            "outputs=Outputs(activation='sigmoid'), with activated=True for a probability"
        )
    if single or outputs.activation == "sigmoid":
        threshold = 0.5 if outputs.activated else 0.0
        index = per_sample(channels, output).expand(*channels.shape, *spatial_shape(output))
        return (output.gather(1, index) > threshold).any(dim=1)
    winner = output.argmax(dim=1)
    return torch.stack([torch.isin(w, c) for w, c in zip(winner, channels, strict=True)])


def in_unit_range(output: Tensor) -> bool:
    """Return whether all values lie between 0 and 1."""
    return bool(output.min() >= 0) and bool(output.max() <= 1)


def looks_activated(output: Tensor) -> bool:
    """Return whether an output ``(B, K, *S)`` has the properties of softmax probabilities."""
    if output.shape[1] < 2 or bool((output < 0).any()):
        return False
    sums = output.sum(dim=1)
    return torch.allclose(sums, torch.ones_like(sums), atol=_SUM_TOLERANCE)
