"""Scanner effects: blur, thick slices, ringing, ghosts, bias field, noise, intensity units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from neuroxai.data.case import MODALITIES
from neuroxai.data.phantom.field import Array, Axes, smooth_noise, stream


@dataclass(frozen=True)
class Scanner:
    """Acquisition parameters of one modality of one case."""

    blur: float
    """Standard deviation in mm."""
    slice_mm: float
    """Slice thickness in mm; 0 for an isotropic scan."""
    slice_axis: int
    ringing: float
    """Fraction of the spatial frequencies, per axis, that is cut off; 0 for none."""
    gamma: float
    offset: float
    bias: float
    """Standard deviation of the logarithm of the bias field."""
    noise: float
    """Standard deviation of the real and imaginary parts of the Rician noise."""
    scale: float
    """Scanner units per unit of signal."""
    ghost: float = 0.0
    """Strength of motion ghosts along the anterior-posterior axis."""
    ghosts: int = 2
    """Number of ghosts in the field of view."""
    overshoot: float = 0.0
    """Strength of resampling overshoot at edges; negative values next to the background."""


def draw_scanners(seed: int, *, flat_bias: bool = False) -> dict[str, Scanner]:
    """Draw the acquisition of every modality; ``flat_bias`` keeps the bias field nearly flat."""
    generator = stream(seed, "scanner")
    scanners = {}
    for modality in MODALITIES:
        thick, rings = generator.random() < 0.35, generator.random() < 0.12
        slice_mm, axis = generator.uniform(2.0, 5.0), generator.choice([0, 1, 2], p=[0.1, 0.1, 0.8])
        ringing = generator.uniform(0.25, 0.5)
        bias = generator.uniform(0.0, 0.16)
        scanners[modality] = Scanner(
            blur=float(generator.uniform(0.3, 0.95)),
            slice_mm=float(slice_mm) if thick else 0.0,
            slice_axis=int(axis),
            ringing=float(ringing) if rings else 0.0,
            gamma=float(generator.uniform(0.8, 1.25)),
            offset=float(generator.choice([0.0, generator.uniform(0, 0.10)])),
            bias=float(bias) * (0.2 if flat_bias else 1.0),
            noise=float(np.exp(generator.uniform(np.log(0.003), np.log(0.045)))),
            scale=float(np.exp(generator.uniform(np.log(250), np.log(1600)))),
        )
    return scanners


def degrade_scanners(seed: int, scanners: Mapping[str, Scanner]) -> dict[str, Scanner]:
    """Redraw the artifacts for wide phantoms: stronger than typical, and in more of the scans."""
    generator = stream(seed, "poor scanner")
    worse = {}
    for modality, scanner in scanners.items():
        chance = generator.random(5)
        blur, slice_mm, bias, noise, offset = generator.random(5)
        ghost, overshoot, gamma = generator.random(3)
        ghosts = int(generator.integers(2, 5))
        worse[modality] = replace(
            scanner,
            blur=0.3 + 1.1 * float(blur),
            slice_mm=2.0 + 5.0 * float(slice_mm) if chance[0] < 0.45 else 0.0,
            gamma=float(np.exp(np.log(1.6) * (2 * gamma - 1))),
            bias=0.3 * float(bias),
            noise=float(np.exp(np.log(0.003) + np.log(25) * noise)),
            offset=0.25 * float(offset) if chance[1] < 0.3 else 0.0,
            ghost=0.03 + 0.12 * float(ghost) if chance[2] < 0.15 else 0.0,
            ghosts=ghosts,
            overshoot=0.1 + 0.6 * float(overshoot) if chance[3] < 0.2 else 0.0,
        )
    return worse


def blur_image(image: Array, scanner: Scanner, spacing: float) -> Array:
    """Apply all effects that mix voxels: blur, slice thickness, ringing and ghosts."""
    from scipy.ndimage import gaussian_filter, gaussian_filter1d

    # Sampling on the grid has already blurred the image; add the remaining blur only.
    sigma = np.sqrt(max(scanner.blur**2 - (0.25 * spacing) ** 2, 0.0)) / spacing
    if sigma > 0.2:
        image = gaussian_filter(image, sigma, truncate=2.5)
    if scanner.slice_mm:
        thick = scanner.slice_mm * 0.36 / spacing
        image = gaussian_filter1d(image, thick, axis=scanner.slice_axis, truncate=2.5)
    if scanner.ringing:
        image = _truncate_spectrum(image, scanner.ringing)
    if scanner.ghost:
        step = image.shape[1] // scanner.ghosts
        copies = sum(np.roll(image, step * n, axis=1) for n in range(1, scanner.ghosts))
        image = image + np.float32(scanner.ghost) * copies
    result: Array = np.maximum(image, 0)
    return result


def acquire(
    seed: int,
    modality: str,
    image: Array,
    scanner: Scanner,
    brain: NDArray[np.bool_],
    axes: Axes,
    tilt: Array | float = 1.0,
) -> Array:
    """Apply all effects that act on single voxels; return scanner units, 0 outside the brain.

    ``tilt`` is a factor on the bias field. Rician noise is the magnitude of a complex signal with
    Gaussian noise in both parts (Gudbjartsson, Patz 1995, doi:10.1002/mrm.1910340618).
    """
    generator = stream(seed, f"noise {modality}")
    field = smooth_noise(generator, 45.0)
    signal = np.maximum(image[brain], 0)
    reference = np.float32(0.85)
    signal = reference * (signal / reference) ** np.float32(scanner.gamma) + np.float32(
        scanner.offset
    )
    if scanner.bias:
        signal *= np.exp(np.float32(scanner.bias) * field.on(axes)[brain])
    signal = signal * (tilt[brain] if isinstance(tilt, np.ndarray) else np.float32(tilt))
    noise = generator.standard_normal((2, signal.size), dtype=np.float32)
    noise *= np.float32(scanner.noise)
    signal = np.hypot(signal + noise[0], noise[1]) * np.float32(scanner.scale)
    result = np.zeros(image.shape, dtype=np.float32)
    # Integers, as in scanner files; values in the brain stay above the background value 0.
    result[brain] = np.maximum(np.rint(signal), 1)
    if scanner.overshoot:
        from scipy.ndimage import gaussian_filter

        # One voxel wide, because it arises when the scan is resampled to this grid.
        halo = np.float32(scanner.overshoot) * (result - gaussian_filter(result, 0.8, truncate=2))
        result = np.rint(result + halo)
        result[brain & (result == 0)] = 1
    return result


def _truncate_spectrum(image: Array, fraction: float) -> Array:
    """Remove the highest in-plane frequencies, as a smaller acquisition matrix does."""
    from scipy import fft

    nx, ny = image.shape[:2]
    spectrum = fft.fft2(image, axes=(0, 1))
    fx, fy = np.abs(fft.fftfreq(nx)), np.abs(fft.fftfreq(ny))
    limit = 0.5 * (1 - fraction)
    spectrum[fx > limit] = 0
    spectrum[:, fy > limit] = 0
    result: Array = fft.ifft2(spectrum, axes=(0, 1)).real.astype(np.float32)
    return result
