"""Random changes of gray values, on a whole batch at once, where the batch lies."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neuroxai.training.config.augmentation import Augmentation

Array = NDArray[np.float64]


def vary_intensity(x: Tensor, rng: np.random.Generator, settings: Augmentation) -> Tensor:
    """Return ``x (B, C, *S)`` with gray values varied per sample and modality.

    Steps, each with probability one half: a monotone tone curve, gamma, contrast and brightness, a
    smooth multiplicative field, blur, coarse slices, dimming, noise. They act on values scaled to
    0…1 over the voxels that are not air (air is zero in every channel). Air stays exactly zero, and
    a constant channel as it is. All numbers come from ``rng``: the result is a function of it.

    Examples
    --------
    >>> x = torch.rand(2, 3, 6, 5, 4) + 0.1
    >>> x[:, :, 0] = 0
    >>> y = vary_intensity(x, np.random.default_rng(0), Augmentation())
    >>> y.shape, bool((y[:, :, 0] == 0).all()), bool((y != x).any())
    (torch.Size([2, 3, 6, 5, 4]), True, True)
    """
    tissue = (x != 0).any(dim=1, keepdim=True)
    axes = tuple(range(2, x.ndim))
    low = torch.where(tissue, x, torch.inf).amin(axes, keepdim=True)
    high = torch.where(tissue, x, -torch.inf).amax(axes, keepdim=True)
    span = high - low
    usable = torch.isfinite(span) & (span > 1e-6)
    low, span = torch.where(usable, low, 0), torch.where(usable, span, 1)

    noise_seed = int(rng.integers(2**62))
    y = x.sub(low).div_(span).clamp_(0, 1)
    _tone(y, rng, settings)
    _field(y, rng, settings.bias)
    y.masked_fill_(~tissue, 0)
    _blur(y, rng, settings.blur)
    _coarsen(y, rng, settings.thick_slices)
    _dim(y, rng, settings.ceiling)
    _noise(y, rng, settings.noise, noise_seed)
    return torch.where(tissue & usable, y.mul_(span).add_(low), x)


# Each step acts in place on one image after the other, and only on those that were drawn for it:
# on a CPU this takes half the time of the same on the whole batch with neutral elements.


def _drawn(y: Tensor, rng: np.random.Generator, values: Array) -> Iterator[tuple[Tensor, Array]]:
    """Yield half of the images ``(*S)``, and the row of ``values`` ``(B, C, …)`` of each."""
    for sample, channel in np.argwhere(rng.random(y.shape[:2]) < 0.5):
        yield y[sample, channel], values[sample, channel]


def _tone(y: Tensor, rng: np.random.Generator, settings: Augmentation) -> None:
    """Apply a monotone curve, gamma, contrast and brightness."""
    pairs = (y.shape[0], y.shape[1])
    # The sines keep 0 and 1 in place; slopes of at most twice the strength keep the order.
    for k in (1, 2):
        strength = rng.uniform(-1, 1, pairs) * settings.tone / (k * np.pi)
        for image, amplitude in _drawn(y, rng, strength):
            image.add_(torch.sin(k * torch.pi * image), alpha=float(amplitude))
    y.clamp_(min=0)
    least, most = settings.gamma
    for image, gamma in _drawn(y, rng, np.exp(rng.uniform(np.log(least), np.log(most), pairs))):
        image.pow_(float(gamma))
    for image, contrast in _drawn(y, rng, rng.uniform(*settings.contrast, pairs)):
        image.sub_(0.5).mul_(float(contrast)).add_(0.5)
    shifts = rng.uniform(-settings.brightness, settings.brightness, pairs)
    for image, shift in _drawn(y, rng, shifts):
        image.add_(float(shift))


def _field(y: Tensor, rng: np.random.Generator, amplitude: float) -> None:
    """Multiply by a smooth field, as a receive coil does."""
    coarse = rng.uniform(-amplitude, amplitude, (*y.shape[:2], *([3] * (y.ndim - 2))))
    if amplitude == 0:
        return
    for image, corners in _drawn(y, rng, coarse):
        field = torch.as_tensor(corners, dtype=y.dtype, device=y.device)
        image.mul_(_stretched(field, image.shape, align_corners=True).exp_())


def _blur(y: Tensor, rng: np.random.Generator, widest: float) -> None:
    """Blur with a Gaussian of three to five taps per axis; edges are continued."""
    widths = rng.uniform(0.2, 1, y.shape[:2]) * widest
    if widest == 0:
        return
    for image, width in _drawn(y, rng, widths):
        taps = np.exp(-0.5 * (np.arange(-2, 3) / width) ** 2)
        taps /= taps.sum()
        for axis in range(image.ndim):
            padded = _pad_edge(image, axis, 2)
            image.zero_()
            for tap, weight in enumerate(taps):
                image.add_(padded.narrow(axis, tap, image.shape[axis]), alpha=float(weight))


def _pad_edge(y: Tensor, axis: int, by: int) -> Tensor:
    """Repeat the outermost layers along one axis."""
    size = y.shape[axis]
    first, last = y.narrow(axis, 0, 1), y.narrow(axis, size - 1, 1)
    return torch.cat([first] * by + [y] + [last] * by, dim=axis)


def _coarsen(y: Tensor, rng: np.random.Generator, probability: float) -> None:
    """Coarsen one axis of some samples, as thick slices do."""
    for sample in range(y.shape[0]):
        axis = int(rng.integers(2, y.ndim))
        factor = int(rng.integers(2, 4))
        if rng.random() >= probability or y.shape[axis] < 2 * factor:
            continue
        size = list(y.shape[2:])
        size[axis - 2] = -(-size[axis - 2] // factor)
        for image in y[sample]:
            few = functional.interpolate(image[None, None], size=size, mode="area")
            image.copy_(_stretched(few[0, 0], image.shape, align_corners=False))


def _stretched(image: Tensor, size: torch.Size, *, align_corners: bool) -> Tensor:
    """Return ``image`` interpolated linearly to ``size``."""
    mode = "trilinear" if image.ndim == 3 else "bilinear"
    return functional.interpolate(
        image[None, None], size=size, mode=mode, align_corners=align_corners
    )[0, 0]


def _dim(y: Tensor, rng: np.random.Generator, ceiling: tuple[float, float]) -> None:
    """Scale down, as if a few voxels elsewhere were brighter than all that is seen here."""
    for image, share in _drawn(y, rng, rng.uniform(*ceiling, y.shape[:2])):
        image.mul_(float(share))


def _noise(y: Tensor, rng: np.random.Generator, strongest: float, seed: int) -> None:
    """Add white noise."""
    levels = rng.uniform(0, strongest, y.shape[:2])
    if strongest == 0:
        return
    generator = torch.Generator(device=y.device).manual_seed(seed)
    for image, level in _drawn(y, rng, levels):
        white = torch.randn(image.shape, generator=generator, device=y.device, dtype=y.dtype)
        image.add_(white, alpha=float(level))
