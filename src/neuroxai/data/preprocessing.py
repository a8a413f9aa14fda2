"""The preprocessing recipe of a network, stored in its model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from neuroxai.data.intensity import FixedScale, Intensity
from neuroxai.data.steps import Step
from neuroxai.files.schema import List, Schema, Text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neuroxai.data.case import Case
    from neuroxai.data.preparation import Prepared

_VOLUME_SIZE = (192, 224, 160)
"""Size of the crop in the paper (§2.2)."""
_SLICE_SIZE = (224, 224)
"""Input size of ImageNet networks; it holds the paper's axial crop of 192 x 224."""
_AXIS_PAIRS = ("LR", "PA", "IS")

Count = Annotated[int, Field(gt=0)]
Order = Literal[0, 1, 3]
Positive = Annotated[float, Field(gt=0)]


class Preprocessing(Schema):
    """How a scan becomes the input of a network.

    Intensities are normalized per modality over the brain, the voxels where any of the network's
    modalities is not zero. With intensity v, mean μ and standard deviation σ::

        z = clip((v − μ) / σ, −clip, clip)        zscore
        x = (z − min z) / (max z − min z)         zscore_minmax, as in the paper (§2.2)
        x = (z + clip) / (2 clip)                 zscore_scaled

    All three set the background to exactly 0. ``zscore_robust`` and ``zscore_robust_scaled`` are
    ``zscore`` and ``zscore_scaled`` with μ and σ of the voxels between the 2nd and 98th percentile
    of the brain, so that vessels and fluid do not change the scale. ``zscore_nonzero`` uses the
    nonzero voxels of the modality itself, ``zscore_filled`` the brain with its holes filled,
    ``zscore_box`` all voxels of the brain's bounding box; ``minmax`` scales the whole image,
    including air, to [0, 1], and ``minmax_box`` the bounding box. Without clipping, a z-score
    before min-max scaling has no effect. With clipping, a few bright vessels no longer compress
    the brain's gray values, and with ``zscore_scaled`` the brightest voxel does not change the
    others.

    The image is flipped and transposed to the network's axes and then cropped or padded. It is
    resampled only if the network needs a voxel size.

    References
    ----------
    R. A. Zeineldin et al., *Int. J. CARS* 17, 1673–1683 (2022), doi:10.1007/s11548-022-02619-x.

    Examples
    --------
    >>> recipe = Preprocessing(modalities=("FLAIR",) * 3, plane="axial", size=(224, 224))
    >>> Preprocessing.from_dict(recipe.to_dict()) == recipe
    True
    """

    title: ClassVar[str] = "preprocessing"

    modalities: List[tuple[Text, ...]] = Field(min_length=1, examples=[["T1", "FLAIR"]])
    """Names of the input channels in order; a name may occur more than once."""
    intensity: Intensity | List[tuple[Intensity | FixedScale, ...]] = "zscore_minmax"
    """Intensity normalization, or a list with one per modality: a name, or fixed numbers (``low``,
    ``high``, ``subtract``, ``divide``)."""
    size: List[tuple[Count, ...]] | None = _VOLUME_SIZE
    """3D: largest size per axis; each axis gets the smallest multiple of ``divisor`` that holds the
    scan, up to this. Null means no limit. 2D: the exact size, (224, 224) by default."""
    plane: Literal["axial"] | None = None
    """Null for a 3D network, ``axial`` for a 2D network that takes axial slices."""
    divisor: Count = 32
    """Number that must divide each axis of a 3D input."""
    clip: Positive | None = 5.0
    """Largest absolute z-score, in standard deviations; null does not clip."""
    spacing_mm: List[tuple[Positive, Positive]] | None = None
    """Smallest and largest voxel edge of the training data; other scans cause a warning."""
    orientation: str | None = "RAS"
    """Directions of the axes, for example ``RAS`` or ``LPS``; null keeps the stored orientation."""
    axis_order: List[tuple[int, int, int]] = (0, 1, 2)
    """Order of these axes in the network's input; (2, 1, 0) is z, y, x."""
    crop_to_brain: bool = False
    """Crop to the brain's bounding box."""
    voxel_mm: List[tuple[Positive | None, Positive | None, Positive | None]] | None = None
    """Voxel edges along the network's axes that the network requires; null accepts any."""
    resampling: Literal["refuse", "nnunet"] = "refuse"
    """What to do with a scan of another voxel size: ``refuse`` it, or resample the brain's bounding
    box as ``nnunet`` does; see :class:`~neuroxai.data.resampling.Resampling`."""
    resampling_orders: List[tuple[Order, Order]] = (3, 1)
    """Orders of the splines that scans are resampled with, and that outputs are resampled back."""
    separate_slices: bool = True
    """Whether slices of very thick voxels are resampled in 2D."""
    steps: List[tuple[Step, ...]] | None = None
    """Steps after ``orientation``, in order, as MONAI's transforms; they replace the other keys but
    ``modalities`` and ``divisor``. See ``data.steps``."""

    @model_validator(mode="before")
    @classmethod
    def _default_slice_size(cls, table: Any) -> Any:
        if isinstance(table, Mapping) and table.get("plane") is not None:
            return {"size": _SLICE_SIZE, **table}
        return table

    @field_validator("spacing_mm")
    @classmethod
    def _ordered(cls, limits: tuple[float, float] | None) -> tuple[float, float] | None:
        if limits is not None and limits[0] > limits[1]:
            raise ValueError("[smallest, largest]")
        return limits

    @field_validator("orientation")
    @classmethod
    def _axis_codes(cls, codes: str | None) -> str | None:
        if codes is not None and (
            len(codes) != 3 or any(sum(code in pair for code in codes) != 1 for pair in _AXIS_PAIRS)
        ):
            raise ValueError("three axis codes, for example 'RAS' or 'LPS', or null")
        return codes

    @field_validator("axis_order")
    @classmethod
    def _permutation(cls, order: tuple[int, int, int]) -> tuple[int, int, int]:
        if sorted(order) != [0, 1, 2]:
            raise ValueError("a permutation of [0, 1, 2]")
        return order

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.steps is not None:
            self._check_steps()
        elif self.plane is None:
            self._check_volume_size()
        else:
            self._check_slices()
        for name in ("zscore_scaled", "zscore_robust_scaled"):
            if name in self.intensities and self.clip is None:
                raise ValueError(f"clip is null, expected a number above 0: {name} divides by it")
        if len(self.intensities) != len(self.modalities):
            raise ValueError(
                f"intensity has {len(self.intensities)} entries, expected one name, or one entry "
                f"for each of the {len(self.modalities)} modalities"
            )
        if self.resampling == "nnunet" and (self.voxel_mm is None or not self.crop_to_brain):
            raise ValueError(
                "resampling is 'nnunet' without voxel_mm and crop_to_brain; set both, or "
                "resampling to 'refuse'"
            )
        return self

    @property
    def intensities(self) -> tuple[Intensity | FixedScale, ...]:
        """The normalization of each modality."""
        if isinstance(self.intensity, tuple):
            return self.intensity
        return (self.intensity,) * len(self.modalities)

    def _check_volume_size(self) -> None:
        size, divisor = self.size, self.divisor
        if size is not None and (len(size) != 3 or any(edge % divisor for edge in size)):
            raise ValueError(
                f"size is {list(size)}, expected null or three multiples of {divisor}, the divisor"
            )

    def _check_steps(self) -> None:
        used = {"modalities", "steps", "orientation", "divisor"}
        for key, field in type(self).model_fields.items():
            if key not in used and getattr(self, key) != field.default:
                raise ValueError(f"{key} has no effect with steps; leave {key} out")
        for number, step in enumerate(self.steps or ()):
            channels = getattr(step, "channels", None) or ()
            if any(channel >= len(self.modalities) for channel in channels):
                raise ValueError(
                    f"steps[{number}].channels is {list(channels)}, expected indices of the "
                    f"{len(self.modalities)} modalities, from 0"
                )

    def _check_slices(self) -> None:
        if self.size is None or len(self.size) != 2:
            shown = "null" if self.size is None else list(self.size)
            raise ValueError(f"size is {shown}, expected two whole numbers for axial slices")
        fixed = {"orientation": "RAS", "axis_order": (0, 1, 2), "crop_to_brain": False,
                 "voxel_mm": None}  # fmt: skip
        for key, value in fixed.items():
            if getattr(self, key) != value:
                raise ValueError(
                    f"{key} is {getattr(self, key)!r}, expected {value!r} for axial slices; leave "
                    f"{key} out"
                )

    def prepare(
        self,
        case: Case,
        slice_index: int | Literal["truth"] | None = None,
        *,
        mask: NDArray[Any] | None = None,
    ) -> Prepared:
        """Prepare the network's input from a case.

        Parameters
        ----------
        case
            Scans of one patient.
        slice_index
            For a 2D network: index of the axial slice, counted from the feet, or ``truth`` for the
            slice with the largest tumor in the reference segmentation. None uses ``mask`` if given,
            otherwise the reference segmentation.
        mask
            ``(I, J, K)`` on the case's grid, for example a predicted tumor.

        Raises
        ------
        CaseError
            If the case lacks a modality, a volume is empty, constant or not finite inside the
            brain, or no slice can be chosen.
        """
        from neuroxai.data.preparation import prepare

        return prepare(self, case, slice_index, mask=mask)
