"""Baselines: the image a path starts from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neuroxai.core.air import air_value, foreground
from neuroxai.core.errors import MethodError, suggestion
from neuroxai.core.probe.probe import Probe
from neuroxai.core.spatial import per_sample
from neuroxai.methods.paths.baseline_names import BASELINES, MIRROR, check_name, named_axis
from neuroxai.methods.paths.healthy import healthy_tissue
from neuroxai.methods.paths.mirror import mirror_image

Baseline = str | float | NDArray[Any] | Tensor
"""A name, a number, or an image."""

BLUR_FRACTION = 0.1
"""Standard deviation of the blur as a fraction of each axis: 24 voxels of 240, the radius of a
large tumor at 1 mm."""


def baseline_image(
    baseline: Baseline, probe: Probe, x: Tensor, generator: torch.Generator
) -> Tensor:
    """Return the baseline of ``x``, the same shape.

    Parameters
    ----------
    baseline
        ``zero`` (the paper's); ``black``, the value of air on this scan after the network's
        preprocessing, which is the probe's ``background_value`` or
        :func:`~neuroxai.core.air.air_value` (after a z-score, zero is the mean of the brain);
        ``blur``, the strongly smoothed image; ``mean`` of each channel; ``brain``, a brain of one
        gray value per channel, see :func:`even_brain`; ``healthy``, the same with the mean outside
        the predicted tumor, see :func:`~neuroxai.methods.paths.healthy.healthy_tissue`; ``mirror``,
        the image with left and right exchanged, see
        :func:`~neuroxai.methods.paths.mirror.mirror_image`, or ``mirror:0`` along the first spatial
        axis; ``noise``, uniform within the range of each channel. Or a number, a
        number per channel, or an image as an array or a tensor that broadcasts to ``x``.

    Raises
    ------
    MethodError
        If the name is unknown, the image does not fit, or the left-right axis is unknown.
    """
    if not isinstance(baseline, str):
        return _given(baseline, x)
    flat = x.flatten(2)
    match baseline:
        case "zero":
            return torch.zeros_like(x)
        case "black":
            known = probe.background_value
            air = air_value(x) if known is None else x.new_tensor(known).expand(x.shape[:2])
            return per_sample(air, x).expand_as(x).clone()
        case "mean":
            return per_sample(flat.mean(dim=2), x).expand_as(x).clone()
        case "brain":
            return even_brain(x)
        case "healthy":
            return healthy_tissue(probe, x)
        case "noise":
            low, high = flat.amin(dim=2), flat.amax(dim=2)
            drawn = torch.rand(x.shape, generator=generator).to(x)
            return per_sample(low, x) + drawn * per_sample(high - low, x)
        case "blur":
            return gaussian_blur(x, BLUR_FRACTION)
    if baseline == MIRROR or named_axis(baseline) is not None:
        return mirror_image(x, _left_right(baseline, probe, x))
    raise MethodError(f"unknown baseline {baseline!r}: {suggestion(baseline, BASELINES)}")


def check_baseline(method: str, baseline: Baseline) -> None:
    """Raise if a baseline is unknown."""
    if isinstance(baseline, str):
        check_name(method, baseline)


def name_of(baseline: Baseline) -> str:
    """Return the name of a baseline in notes: its own, its number, or ``given``.

    Examples
    --------
    >>> name_of("blur"), name_of(0.5), name_of(torch.zeros(1))
    ('blur', '0.5', 'given')
    """
    if isinstance(baseline, (str, int, float)):
        return str(baseline)
    return "given"


def _given(baseline: float | NDArray[Any] | Tensor, x: Tensor) -> Tensor:
    """Return a number, an array or a tensor as an image; one axis is one number per channel."""
    shape = tuple(np.shape(baseline)) if not isinstance(baseline, Tensor) else tuple(baseline.shape)
    try:
        given = torch.as_tensor(baseline).detach().to(device=x.device, dtype=x.dtype)
        if given.dim() == 1 and len(given) == x.shape[1]:
            given = per_sample(given.unsqueeze(0), x)
        if given.dim() == 1:
            raise ValueError
        image = given.expand_as(x).clone()
    except (RuntimeError, TypeError, ValueError):
        raise MethodError(
            f"the baseline has shape {shape}, expected a number, one number per channel, or an "
            f"image that broadcasts to {tuple(x.shape)}"
        ) from None
    if not bool(torch.isfinite(image).all()):
        raise MethodError("the baseline has NaN or infinite values: replace them")
    return image


def _left_right(baseline: str, probe: Probe, x: Tensor) -> int:
    """Return the spatial axis along which an image is mirrored."""
    axis, last = named_axis(baseline), x.dim() - 3
    if axis is None:
        axis = probe.left_right_axis
    if axis is None:
        raise MethodError(
            "the baseline 'mirror' needs the left-right axis of the image, which is unknown: name "
            f"one of its spatial axes, mirror:0 to mirror:{last}"
        )
    if axis > last:
        raise MethodError(
            f"the baseline {baseline!r} names an axis that does not exist, expected mirror:0 to "
            f"mirror:{last}"
        )
    return axis


def even_brain(x: Tensor) -> Tensor:
    r"""Return a brain without detail: everything but air replaced by its mean.

    Along a path from a black image the whole brain appears, and the map explains what
    distinguishes it from an empty image. On a scan normalized to 0…1, which is the paper's choice,
    this is most of the brain. Along a path from this image only the differences from a homogeneous
    brain appear, and air, which does not change, is exactly zero. After a z-score within the
    brain, ``zero`` equals this image.

    Air is detected from the corners, see :func:`~neuroxai.core.air.foreground`. If hardly any voxel
    is air, as in a tightly cropped scan, this is ``mean``.

    Parameters
    ----------
    x
        Images ``(B, C, *S)``, processed independently.

    Examples
    --------
    >>> even_brain(torch.tensor([[[0.0, 2.0, 4.0, 0.0, 0.0]]]))
    tensor([[[0., 3., 3., 0., 0.]]])
    """
    flat, brain = x.flatten(2), foreground(x).flatten(2)
    mean = (flat * brain).sum(dim=2, keepdim=True) / brain.sum(dim=2, keepdim=True).clamp(min=1)
    return torch.where(brain, mean, flat).reshape(x.shape)


def gaussian_blur(x: Tensor, fraction: float) -> Tensor:
    """Smooth each spatial axis by a Gaussian of ``fraction`` of its length, with repeated edges."""
    for axis in range(2, x.dim()):
        sigma = fraction * x.shape[axis]
        radius = min(int(3 * sigma + 0.5), x.shape[axis] - 1)
        if radius < 1:
            continue
        offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
        kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
        lines = x.movedim(axis, -1)
        rows = lines.reshape(-1, 1, x.shape[axis])
        padded = functional.pad(rows, (radius, radius), mode="replicate")
        smooth = functional.conv1d(padded, (kernel / kernel.sum()).reshape(1, 1, -1))
        x = smooth.reshape(lines.shape).movedim(-1, axis)
    return x.contiguous()
