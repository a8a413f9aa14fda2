"""Random variation of training images."""

from __future__ import annotations

from typing import Self

from pydantic import field_validator, model_validator

from neuroxai.files.schema import List, Schema
from neuroxai.training.config.number_types import Fraction, NonNegative, Positive


class Augmentation(Schema):
    """Strength of each random change; 0, or a range of one value, turns a step off."""

    flip: List[tuple[bool, ...]] = (True, True, True)
    """Whether to flip at random along each axis: X, Y, Z, or X, Y for slices."""
    zoom: List[tuple[Positive, Positive]] = (0.8, 1.25)
    """Smallest and largest scale of the image."""
    anisotropy: Positive = 1.15
    """Largest further scale of single axes, up or down."""
    rotation: NonNegative = 12.0
    """Largest angle about each axis in degrees."""
    tone: Fraction = 0.35
    """Strength of a random monotonic curve over each modality's gray values. Above 1 a curve is no
    longer monotonic."""
    gamma: List[tuple[Positive, Positive]] = (0.65, 1.55)
    """Smallest and largest exponent of a gamma curve."""
    contrast: List[tuple[Positive, Positive]] = (0.75, 1.3)
    """Smallest and largest factor of the contrast."""
    brightness: NonNegative = 0.1
    """Largest shift of the gray values."""
    bias: NonNegative = 0.25
    """Log amplitude of a smooth multiplicative field."""
    noise: NonNegative = 0.06
    """Largest standard deviation of added noise, as a fraction of the gray value range."""
    blur: NonNegative = 0.9
    """Largest width of a Gaussian blur in voxels."""
    thick_slices: Fraction = 0.15
    """Probability of reducing the resolution along one axis to a half or a third."""
    ceiling: List[tuple[Positive, Positive]] = (0.4, 1.0)
    """Smallest and largest factor that a modality is scaled by, at most 1. Inputs are scaled by
    their brightest voxel, so one bright vessel or a remnant of scalp darkens the rest."""

    @field_validator("zoom", "gamma", "contrast", "ceiling")
    @classmethod
    def _ordered(cls, limits: tuple[float, float]) -> tuple[float, float]:
        if limits[0] > limits[1]:
            raise ValueError("[smallest, largest]")
        return limits

    @model_validator(mode="after")
    def _darkens(self) -> Self:
        if self.ceiling[1] > 1:
            raise ValueError(
                f"ceiling is {list(self.ceiling)}, expected [smallest, largest] of at most 1"
            )
        return self
