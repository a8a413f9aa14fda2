"""Baselines: the image a path starts from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from neuroxai.core.errors import MethodError, suggestion
from neuroxai.core.probe.probe import Probe
from neuroxai.core.spatial import per_sample

BASELINES = ("zero", "black", "blur", "mean", "brain", "noise")
AUTO = "auto"
"""``zero``, or ``blur`` if the score jumps at the beginning of a path from zero."""

AIR_TOLERANCE = 0.02
"""Deviation of an air voxel from the value of air, as a fraction of the channel's largest one,
which allows for the ripples that interpolation leaves around a brain."""

_EARLY = 1e-3
"""Position on the path before which a change of the score is a jump."""

_JUMP = 0.25
"""Fraction of the score's change that makes it one."""

BLUR_FRACTION = 0.1
"""Standard deviation of the blur as a fraction of each axis: 24 voxels of 240, the radius of a
large tumor at 1 mm."""


def baseline_image(
    baseline: str | Tensor, probe: Probe, x: Tensor, generator: torch.Generator
) -> Tensor:
    """Return the baseline of ``x``, the same shape.

    Parameters
    ----------
    baseline
        ``zero`` (the paper's); ``black``, the value of air after normalization, which is the
        probe's ``background_value`` or the minimum of each channel (after a z-score, zero is the
        mean of the brain); ``blur``, the strongly smoothed image; ``mean`` of each channel;
        ``brain``, a brain of one gray value per channel, see :func:`even_brain`; ``noise``, uniform
        within the range of each channel; or a tensor that broadcasts to ``x``.

    Raises
    ------
    MethodError
        If the name is unknown or the tensor does not fit.
    """
    if isinstance(baseline, Tensor):
        try:
            given = baseline.to(device=x.device, dtype=x.dtype)
            return given.expand_as(x).clone()
        except RuntimeError:
            raise MethodError(
                f"the baseline has shape {tuple(baseline.shape)}, expected one that broadcasts "
                f"to {tuple(x.shape)}"
            ) from None
    flat = x.flatten(2)
    match baseline:
        case "zero":
            return torch.zeros_like(x)
        case "black":
            background_value = (
                flat.amin(dim=2)
                if probe.background_value is None
                else x.new_tensor(probe.background_value).expand(x.shape[:2])
            )
            return per_sample(background_value, x).expand_as(x).clone()
        case "mean":
            return per_sample(flat.mean(dim=2), x).expand_as(x).clone()
        case "brain":
            return even_brain(x)
        case "noise":
            low, high = flat.amin(dim=2), flat.amax(dim=2)
            drawn = torch.rand(x.shape, generator=generator).to(x)
            return per_sample(low, x) + drawn * per_sample(high - low, x)
        case "blur":
            return gaussian_blur(x, BLUR_FRACTION)
    raise MethodError(f"unknown baseline {baseline!r}: {suggestion(baseline, BASELINES)}")


def even_brain(x: Tensor) -> Tensor:
    r"""Return a brain without detail: everything but air replaced by its mean.

    Along a path from a black image the whole brain appears, and the map explains what
    distinguishes it from an empty image. On a scan normalized to 0…1, which is the paper's choice,
    this is most of the brain. Along a path from this image only the differences from a homogeneous
    brain appear, and air, which does not change, is exactly zero. After a z-score within the
    brain, ``zero`` equals this image.

    Air is detected from the corners: voxels whose channels are all within 2 % of the corners'
    median, relative to the largest deviation from it. If hardly any voxel is air, as in a scan with
    the skull, this is ``mean``.

    Parameters
    ----------
    x
        Images ``(B, C, *S)``, processed independently.

    Examples
    --------
    >>> even_brain(torch.tensor([[[0.0, 2.0, 4.0, 0.0, 0.0]]]))
    tensor([[[0., 3., 3., 0., 0.]]])
    """
    corners = x
    for axis in range(2, x.dim()):
        ends = torch.tensor([0, x.shape[axis] - 1], device=x.device)
        corners = corners.index_select(axis, ends)
    flat = x.flatten(2)
    away = (flat - corners.flatten(2).median(dim=2, keepdim=True).values).abs()
    brain = (away > AIR_TOLERANCE * away.amax(dim=2, keepdim=True)).any(dim=1, keepdim=True)
    mean = (flat * brain).sum(dim=2, keepdim=True) / brain.sum(dim=2, keepdim=True).clamp(min=1)
    return torch.where(brain, mean, flat).reshape(x.shape)


@dataclass(frozen=True, eq=False)
class Start:
    """The baselines of a batch.

    Attributes
    ----------
    image
        The baseline, of the input's shape.
    score
        The target's value ``(B,)`` at the baseline.
    names
        The baseline that ``auto`` chose for each sample.
    notes
        The reason for the choice.
    """

    image: Tensor
    score: Tensor
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def jumped(self) -> bool:
        """Whether the score of any sample jumps near a zero image."""
        return "blur" in self.names


def path_start(
    baseline: str | Tensor, probe: Probe, x: Tensor, generator: torch.Generator
) -> Start:
    r"""Return the baselines of a path method; ``auto`` depends on the network.

    A network with instance norms responds to contrast rather than brightness. On the path from a
    zero image to :math:`x`, nearly all of its score's change then occurs in the first thousandth,
    where no gradient is computed, and the rest of the path explains little. If

    .. math:: |S(10^{-3} x) - S(0)| > 0.25 \, |S(x) - S(0)|

    for a sample, its path starts at the strongly smoothed image instead, which has the same
    brightness and no detail.

    Raises
    ------
    MethodError
        As :func:`baseline_image`.
    """
    if isinstance(baseline, Tensor) or baseline != AUTO:
        image = baseline_image(baseline, probe, x, generator)
        return Start(image, probe.score(image))
    zero = torch.zeros_like(x)
    at_zero, early, whole = (probe.score(point) for point in (zero, _EARLY * x, x))
    jump = (early - at_zero).abs() > _JUMP * (whole - at_zero).abs()
    names = tuple("blur" if jumps else "zero" for jumps in jump.tolist())
    if not bool(jump.any()):
        return Start(zero, at_zero, names)
    image = torch.where(per_sample(jump, x), gaussian_blur(x, BLUR_FRACTION), zero)
    return Start(image, probe.score(image), names, (
        "the network responds to contrast rather than brightness: at least a quarter of the "
        "score's change from a zero image to this one occurs in the first thousandth of the path, "
        "so the path starts at the blurred image",
    ))  # fmt: skip


def check_baseline(method: str, baseline: str | Tensor) -> None:
    """Raise if a baseline is unknown."""
    known = (AUTO, *BASELINES)
    if isinstance(baseline, str) and baseline not in known:
        raise MethodError(f"{method}: unknown baseline {baseline!r}: {suggestion(baseline, known)}")


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
