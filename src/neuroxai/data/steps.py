"""Steps of a preprocessing that are applied one after another, as in MONAI."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from neuroxai.files.schema import List, Schema

Length = Annotated[int, Field(gt=0)]
Millimeters = Annotated[float, Field(gt=0)]
Lengths = List[tuple[Length | None, Length | None, Length | None]]
Edges = List[tuple[Millimeters | None, Millimeters | None, Millimeters | None]]
Percent = Annotated[float, Field(ge=0, le=100)]
Margins = List[
    tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
]
Multiples = List[tuple[Length, Length, Length]]
Side = Literal["both", "end"]


class OnChannels(Schema):
    """Base of the steps that change intensities."""

    channels: List[tuple[Annotated[int, Field(ge=0)], ...]] | None = None
    """Indices of the channels that are changed; null is all."""


class Normalize(OnChannels):
    """``(v - subtract) / divide``."""

    step: Literal["normalize"]
    subtract: List[tuple[float, ...]] | None = None
    """One number, or one per channel; null is the mean."""
    divide: List[tuple[float, ...]] | None = None
    """One number, or one per channel; null is the standard deviation. 0 counts as 1."""
    nonzero: bool = False
    """Whether zeros are left out of mean and standard deviation and stay 0."""
    joint: bool = False
    """Whether mean and standard deviation are those of all channels together."""


class Scale(OnChannels):
    """Scale smallest and largest value to ``low`` and ``high``."""

    step: Literal["scale"]
    low: float | None = 0.0
    """Smallest value afterwards; null as ``high``."""
    high: float | None = 1.0
    """Largest value afterwards; if this or ``low`` is null, they are 0 and 1."""
    joint: bool = False
    """Whether smallest and largest value are those of all channels together."""


class ScaleRange(OnChannels):
    """Scale ``from_low`` and ``from_high`` to ``low`` and ``high``."""

    step: Literal["scale_range"]
    from_low: float
    """Value that becomes ``low``."""
    from_high: float
    """Value that becomes ``high``."""
    low: float | None = None
    """Value of ``from_low`` afterwards; if this or ``high`` is null, they are 0 and 1."""
    high: float | None = None
    """Value of ``from_high`` afterwards."""
    clip: bool = False
    """Whether values are clipped to ``low`` and ``high``, as far as they are given."""


class ScalePercentiles(OnChannels):
    """Scale the percentiles ``lower`` and ``upper`` to ``low`` and ``high``."""

    step: Literal["scale_percentiles"]
    lower: Percent
    """Lower percentile."""
    upper: Percent
    """Upper percentile."""
    low: float | None = 0.0
    """Value of the lower percentile afterwards."""
    high: float | None = 1.0
    """Value of the upper percentile afterwards."""
    clip: bool = False
    """Whether values are clipped to ``low`` and ``high``."""
    relative: bool = False
    """Whether the percentiles become the same percentages of the range from ``low`` to ``high``."""
    joint: bool = False
    """Whether percentiles are those of all channels together."""


class ClipPercentiles(OnChannels):
    """Clip values to the percentiles ``lower`` and ``upper``."""

    step: Literal["clip_percentiles"]
    lower: Percent = 0.0
    """Lower percentile."""
    upper: Percent = 100.0
    """Upper percentile."""
    joint: bool = False
    """Whether percentiles are those of all channels together."""


class Orient(Schema):
    """Flip and transpose to the axes ``axes``."""

    step: Literal["orient"]
    axes: str
    """Directions of the axes, for example ``RAS``."""


class Resample(Schema):
    """Resample to voxels of ``mm``; the centers of the first voxels coincide, as in MONAI."""

    step: Literal["resample"]
    mm: Edges
    """Voxel edges; null keeps the edge of the scan."""
    min_mm: Edges | None = None
    """Edges from this to ``max_mm`` are kept."""
    max_mm: Edges | None = None
    """See ``min_mm``."""
    interpolation: Literal["linear", "nearest", "cubic"] = "linear"
    """How values between voxels are computed."""
    outside: Literal["edge", "zero"] = "edge"
    """Value outside of the scan: that of its edge, or 0."""


class Resize(Schema):
    """Resize to a number of voxels."""

    step: Literal["resize"]
    size: Lengths | None = None
    """Voxels per axis; null keeps an axis."""
    longest: Length | None = None
    """Voxels along the longest axis; the others follow. Instead of ``size``."""
    interpolation: Literal["area", "linear", "nearest", "nearest_exact"] = "area"
    """How values are computed; ``area`` is the mean over the voxels that a new one touches."""
    align_corners: bool = False
    """For ``linear``: whether the centers of the first and last voxels coincide, not the edges."""

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.size is None) == (self.longest is None):
            raise ValueError("either size or longest")
        return self


class CropForeground(Schema):
    """Crop to the box of the voxels above a threshold."""

    step: Literal["crop_foreground"]
    channels: List[tuple[Annotated[int, Field(ge=0)], ...]] | None = None
    """Indices of the channels that are searched; null is all."""
    above: float = 0.0
    """Threshold."""
    margin: Margins = (0, 0, 0)
    """Voxels that are added on each side."""
    inside: bool = False
    """Whether the margin ends at the edge of the image; otherwise it is padded."""
    multiple_of: Multiples = (1, 1, 1)
    """Numbers that divide the size of the box."""
    value: float = 0.0
    """Value of padding."""


class CenterCrop(Schema):
    """Crop the middle."""

    step: Literal["center_crop"]
    size: Lengths
    """Largest number of voxels per axis; null keeps an axis."""


class Pad(Schema):
    """Pad to a smallest size."""

    step: Literal["pad"]
    size: Lengths
    """Smallest number of voxels per axis; null keeps an axis."""
    side: Side = "both"
    """Where padding is added; with ``both``, an odd voxel is added at the end."""
    value: float = 0.0
    """Value of padding."""


class PadToMultiple(Schema):
    """Pad to a multiple of a number."""

    step: Literal["pad_to_multiple"]
    of: Multiples
    """The number per axis."""
    side: Side = "both"
    """As for ``pad``."""
    value: float = 0.0
    """Value of padding."""


IntensityStep = Normalize | Scale | ScaleRange | ScalePercentiles | ClipPercentiles
SpatialStep = Orient | Resample | Resize | CropForeground | CenterCrop | Pad | PadToMultiple
Step = Annotated[IntensityStep | SpatialStep, Field(discriminator="step")]
"""One step; its key ``step`` is its name."""

STEPS: tuple[type[Schema], ...] = (
    Normalize, Scale, ScaleRange, ScalePercentiles, ClipPercentiles, Orient, Resample, Resize,
    CropForeground, CenterCrop, Pad, PadToMultiple,
)  # fmt: skip
"""All steps, in the order of the documentation."""
