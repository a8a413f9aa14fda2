"""Where a path begins: the image that means "nothing there"."""

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
"""``zero``, or ``blur`` where a path from zero says nothing."""

AIR_TOLERANCE = 0.02
"""How far from the value of air a voxel of air may be, as a fraction of the channel's reach."""

_EARLY = 1e-3
_JUMP = 0.25

BLUR_FRACTION = 0.1
"""Standard deviation of the blur, as a fraction of each axis."""


def baseline_image(
    baseline: str | Tensor, probe: Probe, x: Tensor, generator: torch.Generator
) -> Tensor:
    """Return the baseline of ``x``, the same shape.

    Parameters
    ----------
    baseline
        ``zero`` (the paper's); ``black``, what air looks like after normalization (after a z-score
        zero is the mean brain, not black): the probe's ``air``, or every channel's minimum;
        ``blur``, the image itself, strongly smoothed; ``mean``, every channel's mean; ``brain``,
        a brain of one gray per channel, see :func:`even_brain`; ``noise``, uniform within every
        channel's range; or a tensor that broadcasts to ``x``.

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
    raise MethodError(f"baseline {baseline!r} is unknown: {suggestion(baseline, BASELINES)}")


def even_brain(x: Tensor) -> Tensor:
    r"""Return a brain without any detail: its own mean in place of everything that is not air.

    Along a path from a black image the whole brain appears, and a map says what tells it from
    nothing at all: on a scan that is normalized to 0…1, which is the paper's choice, that is most
    of the brain. Along a path from this image only what tells the scan from an even brain
    appears, and air, which does not change, gets exactly nothing. After a z-score within the
    brain, ``zero`` is this image already.

    Air is what the corners show: where every channel lies within 2 % of their median, as a
    fraction of the farthest value from it, for interpolation leaves ripples around a brain. Where
    hardly anything is air, as in a scan with its skull, this is ``mean``.

    Parameters
    ----------
    x
        Images ``(B, C, *S)``; each has its own brain.

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
    inside = (away > AIR_TOLERANCE * away.amax(dim=2, keepdim=True)).any(dim=1, keepdim=True)
    mean = (flat * inside).sum(dim=2, keepdim=True) / inside.sum(dim=2, keepdim=True).clamp(min=1)
    return torch.where(inside, mean, flat).reshape(x.shape)


@dataclass(frozen=True, eq=False)
class Start:
    """Where the paths of a batch begin.

    Attributes
    ----------
    image
        The baseline, of the input's shape.
    score
        The target's value ``(B,)`` there.
    names
        What was chosen for every sample, if it was chosen.
    notes
        Why.
    """

    image: Tensor
    score: Tensor
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def jumped(self) -> bool:
        """Whether zero would have been a bad beginning for any sample."""
        return "blur" in self.names


def path_start(
    baseline: str | Tensor, probe: Probe, x: Tensor, generator: torch.Generator
) -> Start:
    r"""Return the baseline of a path method; ``auto`` looks at the network first.

    A network with instance norms answers to contrast and not to brightness: of the way from a zero
    image to :math:`x` its score goes nearly all in the first thousandth, where no gradient is
    taken, and what adds up afterwards says nothing. Where

    .. math:: |S(10^{-3} x) - S(0)| > 0.25 \, |S(x) - S(0)|

    the path starts at the strongly smoothed image instead, which has the same brightness and no
    detail; each sample for itself.

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
        "the network answers to contrast, not to brightness: from a zero image to this one its "
        "score goes a quarter of the way or more in the first thousandth, so the path starts at "
        "the blurred image",
    ))  # fmt: skip


def check_baseline(method: str, baseline: str | Tensor) -> None:
    """Refuse a baseline that has no such name."""
    known = (AUTO, *BASELINES)
    if isinstance(baseline, str) and baseline not in known:
        raise MethodError(
            f"{method}: baseline {baseline!r} is unknown: {suggestion(baseline, known)}"
        )


def gaussian_blur(x: Tensor, fraction: float) -> Tensor:
    """Smooth every spatial axis by a Gaussian of ``fraction`` of its length, edges repeated."""
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
