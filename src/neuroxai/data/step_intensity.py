"""Steps that change intensities, applied to an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from neuroxai.data.steps import (
    ClipPercentiles,
    IntensityStep,
    Normalize,
    Scale,
    ScalePercentiles,
)

Image = NDArray[np.float32]
Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""A function of intensities."""


def change_intensities(
    step: IntensityStep, image: Image, air: Sequence[float]
) -> tuple[Image, tuple[float, ...]]:
    """Apply a step to an image ``(C, X, Y, Z)``, and to the intensity of air per channel.

    Examples
    --------
    >>> image = np.array([[0, 1, 2, 4]], np.float32).reshape(1, 1, 2, 2)
    >>> scaled, air = change_intensities(Scale(step="scale"), image, [0.0])
    >>> scaled.ravel().tolist(), air
    ([0.0, 0.25, 0.5, 1.0], (0.0,))
    """
    chosen = list(range(len(image)) if step.channels is None else step.channels)
    groups = [chosen] if getattr(step, "joint", True) else [[channel] for channel in chosen]
    changed, new_air = image.copy(), list(air)
    for group in groups:
        values = image[group].astype(np.float64)
        for number, channel in enumerate(group):
            curve = _curve(step, values, chosen.index(channel))
            result = curve(values[number])
            if isinstance(step, Normalize) and step.nonzero:
                result = np.where(values[number] != 0, result, 0)
            changed[channel] = result
            # Air that a mask leaves out is darker than the brain, not 0, its mean.
            new_air[channel] = float(curve(np.array([air[channel]]))[0])
    return changed, tuple(new_air)


def _curve(step: IntensityStep, values: NDArray[np.float64], position: int) -> Curve:
    """Return the function of a step, with the statistics of ``values``."""
    if isinstance(step, Normalize):
        return _normalization(step, values, position)
    if isinstance(step, Scale):
        least, most = float(values.min()), float(values.max())
        if least == most:
            factor = 1.0 if step.low is None else step.low
            return lambda v: v * factor
        return _line(least, most, step.low, step.high)
    if isinstance(step, ClipPercentiles):
        bounds = np.percentile(values, [step.lower, step.upper])
        return lambda v: np.clip(v, bounds[0], bounds[1])
    low, high = step.low, step.high
    if isinstance(step, ScalePercentiles):
        start, end = np.percentile(values, [step.lower, step.upper]).tolist()
        if step.relative and low is not None and high is not None:
            width = high - low
            low, high = low + width * step.lower / 100, low + width * step.upper / 100
    else:
        start, end = step.from_low, step.from_high
    line = _line(start, end, low, high)
    if not step.clip or (low is None and high is None):
        return line
    return lambda v: np.clip(line(v), low, high)


def _normalization(step: Normalize, values: NDArray[np.float64], position: int) -> Curve:
    used = values[values != 0] if step.nonzero else values
    if not used.size:
        return lambda v: v
    mean = float(used.mean()) if step.subtract is None else _of(step.subtract, position)
    deviation = float(used.std()) if step.divide is None else _of(step.divide, position)
    return lambda v: (v - mean) / (deviation or 1.0)


def _of(numbers: Sequence[float], position: int) -> float:
    return numbers[position] if len(numbers) > 1 else numbers[0]


def _line(start: float, end: float, low: float | None, high: float | None) -> Curve:
    """Return the line through (start, low) and (end, high)."""
    if start == end:
        return lambda v: v - start + (low or 0.0)
    if low is None or high is None:
        return lambda v: (v - start) / (end - start)
    return lambda v: (v - start) / (end - start) * (high - low) + low
