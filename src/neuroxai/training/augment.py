"""Random changes of gray values, on a whole batch at once, where the batch lies."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neuroxai.training.config import Augmentation


def vary_intensity(x: Tensor, rng: np.random.Generator, settings: Augmentation) -> Tensor:
    """Return ``x (B, C, *S)`` with gray values varied per sample and modality.

    Steps, each with probability one half: a monotone tone curve, gamma, contrast and brightness, a
    smooth multiplicative field, blur, coarse slices, noise. They act on values scaled to 0…1 over
    the voxels that are not air (air is zero in every channel). Air stays exactly zero, and a
    constant channel as it is. All numbers come from ``rng``, so the result is a function of it.

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
    y = ((x - low) / span).clamp(0, 1)
    y = _tone(y, rng, settings)
    y = _field(y, rng, settings.bias)
    y = torch.where(tissue, y, 0)
    y = _blur(y, rng, settings.blur)
    y = _coarsen(y, rng, settings.thick_slices)
    y = _noise(y, rng, settings.noise, noise_seed)
    return torch.where(tissue & usable, y * span + low, x)


def _each(values: NDArray[np.float64], like: Tensor) -> Tensor:
    """Lay numbers per sample and channel ``(B, C)`` out so that they spread over ``like``."""
    table = torch.as_tensor(values, dtype=like.dtype, device=like.device)
    return table.reshape(*table.shape, *([1] * (like.ndim - 2)))


def _maybe(
    values: NDArray[np.float64], neutral: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Keep half of ``values`` and put the neutral element in place of the others."""
    kept: NDArray[np.float64] = np.where(rng.random(values.shape) < 0.5, values, neutral)
    return kept


def _tone(y: Tensor, rng: np.random.Generator, settings: Augmentation) -> Tensor:
    """Apply a monotone curve, gamma, contrast and brightness."""
    pairs = (y.shape[0], y.shape[1])
    # The sines keep 0 and 1 in place; slopes of at most twice the strength keep the order.
    for k in (1, 2):
        amplitude = _maybe(rng.uniform(-1, 1, pairs), 0.0, rng) * settings.tone / k
        y = y + _each(amplitude, y) * torch.sin(k * torch.pi * y) / torch.pi
    least, most = settings.gamma
    gamma = np.exp(rng.uniform(np.log(least), np.log(most), pairs))
    y = y.clamp(min=0) ** _each(_maybe(gamma, 1.0, rng), y)
    contrast = _each(_maybe(rng.uniform(*settings.contrast, pairs), 1.0, rng), y)
    shift = rng.uniform(-settings.brightness, settings.brightness, pairs)
    return (y - 0.5) * contrast + 0.5 + _each(_maybe(shift, 0.0, rng), y)


def _field(y: Tensor, rng: np.random.Generator, amplitude: float) -> Tensor:
    """Multiply by a smooth field, as a receive coil does."""
    if amplitude == 0:
        return y
    coarse = rng.uniform(-amplitude, amplitude, (*y.shape[:2], *([3] * (y.ndim - 2))))
    coarse *= rng.random((*y.shape[:2], *([1] * (y.ndim - 2)))) < 0.5
    field = torch.as_tensor(coarse, dtype=y.dtype, device=y.device)
    mode = "trilinear" if y.ndim == 5 else "bilinear"
    smooth = functional.interpolate(field, size=y.shape[2:], mode=mode, align_corners=True)
    return y * smooth.exp()


def _blur(y: Tensor, rng: np.random.Generator, widest: float) -> Tensor:
    """Blur half of the samples and channels with a Gaussian of three to five taps per axis."""
    if widest == 0:
        return y
    pairs = (y.shape[0], y.shape[1])
    width = _maybe(rng.uniform(0.2, 1, pairs) * widest, 1e-3, rng)
    taps = np.exp(-0.5 * (np.arange(-2, 3) / width[..., None]) ** 2)
    taps /= taps.sum(-1, keepdims=True)
    kernel = torch.as_tensor(taps, dtype=y.dtype, device=y.device)
    for axis in range(2, y.ndim):
        padded = _pad_edge(y, axis, 2)
        spread = kernel.reshape(*pairs, *([1] * (y.ndim - 2)), 5)
        y = torch.zeros_like(y)
        for tap in range(5):
            y += padded.narrow(axis, tap, y.shape[axis]) * spread[..., tap]
    return y


def _pad_edge(y: Tensor, axis: int, by: int) -> Tensor:
    """Repeat the outermost layers along one axis."""
    size = y.shape[axis]
    first, last = y.narrow(axis, 0, 1), y.narrow(axis, size - 1, 1)
    return torch.cat([first] * by + [y] + [last] * by, dim=axis)


def _coarsen(y: Tensor, rng: np.random.Generator, probability: float) -> Tensor:
    """Coarsen one axis of some samples, as thick slices do."""
    out = y
    for sample in range(y.shape[0]):
        axis = int(rng.integers(2, y.ndim))
        factor = int(rng.integers(2, 4))
        if rng.random() >= probability or y.shape[axis] < 2 * factor:
            continue
        if out is y:
            out = y.clone()
        size = list(y.shape[2:])
        size[axis - 2] = -(-size[axis - 2] // factor)
        mode = "trilinear" if y.ndim == 5 else "bilinear"
        few = functional.interpolate(y[sample : sample + 1], size=size, mode="area")
        out[sample : sample + 1] = functional.interpolate(
            few, size=y.shape[2:], mode=mode, align_corners=False
        )
    return out


def _noise(y: Tensor, rng: np.random.Generator, strongest: float, seed: int) -> Tensor:
    """Add white noise to half of the samples and channels."""
    if strongest == 0:
        return y
    level = _maybe(rng.uniform(0, strongest, (y.shape[0], y.shape[1])), 0.0, rng)
    generator = torch.Generator(device=y.device).manual_seed(seed)
    white = torch.randn(y.shape, generator=generator, device=y.device, dtype=y.dtype)
    return y + _each(level, y) * white
