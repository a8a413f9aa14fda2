"""A brain of the gray value of its healthy tissue."""

from __future__ import annotations

import torch
from torch import Tensor

from neuroxai.core.air import foreground
from neuroxai.core.errors import TargetError
from neuroxai.core.probe.probe import Probe
from neuroxai.core.spatial import spatial_shape
from neuroxai.core.target.predicted_mask import predicted_mask


def healthy_tissue(probe: Probe, x: Tensor) -> Tensor:
    """Return images ``(B, C, *S)`` whose foreground has the mean of its healthy part.

    Healthy is what is neither air nor predicted, at the explained point, as a class of any of the
    network's regions. It is the whole foreground if nothing else is left, if the network has no
    regions, or if it does not predict the voxels of the image, as a classifier. Air is unchanged.

    Parameters
    ----------
    probe
        The network and target, at the explained point.
    x
        The images, of the explained point's samples, or several copies of them.
    """
    brain = foreground(x)
    healthy = brain
    tumor = _predicted(probe, x)
    if tumor is not None:
        remaining = brain & ~tumor
        some = remaining.flatten(1).any(dim=1).reshape(-1, *[1] * (x.dim() - 1))
        healthy = torch.where(some, remaining, brain)
    axes = tuple(range(2, x.dim()))
    count = healthy.sum(dim=axes, keepdim=True).clamp(min=1)
    mean = (x * healthy).sum(dim=axes, keepdim=True) / count
    return torch.where(brain, mean, x)


def _predicted(probe: Probe, x: Tensor) -> Tensor | None:
    """Return where a tumor is predicted, ``(B, 1, *S)`` bool; None if the output does not tell."""
    output, bound = probe.output(), probe.target
    if output.dim() != x.dim() or spatial_shape(output) != spatial_shape(x):
        return None
    outputs = bound.outputs
    members = dict.fromkeys(each for region in outputs.regions.values() for each in region)
    if not members:
        return None
    known = [outputs.channel(each, output.shape[1]) for each in members]
    channels = torch.tensor([known], device=output.device).expand(len(output), -1)
    try:
        found = predicted_mask(outputs, channels, output).unsqueeze(1)
    except TargetError:  # a single output that may be a logit or a probability
        return None
    copies = len(x) // len(output)
    return found.repeat(copies, *[1] * (x.dim() - 1))
