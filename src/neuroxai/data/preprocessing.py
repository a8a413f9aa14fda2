"""From a case to a network's input, with the way back; the recipe is part of a model's card."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.box import bounding_box
from neuroxai.core.errors import CaseError, ModelError, suggestion
from neuroxai.data.case import Case
from neuroxai.data.grid import obliquity
from neuroxai.data.intensity import INTENSITIES, Intensity, counted_voxels, normalize
from neuroxai.data.placement import Placement, crop_start
from neuroxai.data.preprocessing_check import check_recipe
from neuroxai.data.resampling import Resampling, grid_of
from neuroxai.data.slices import choose_slice, largest_slice

if TYPE_CHECKING:
    import torch

__all__ = [
    "INTENSITIES",
    "Prepared",
    "Preprocessing",
    "largest_slice",
    "truth_on_network_grid",
]

_PAPER_SIZE = (192, 224, 160)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case as a network takes it.

    Attributes
    ----------
    x
        float32 tensor ``(1, C, X, Y, Z)``, or ``(1, C, X, Y)`` for an axial slice.
    placement
        The way back to the patient's grid.
    air
        Per channel what an intensity of zero, no signal, is normalized to: the color black. After
        ``zscore`` that is not 0, which there is the mean of the brain.
    warnings
        What is odd but safe to use, a sentence each, naming the case.
    """

    x: torch.Tensor
    placement: Placement
    background_value: tuple[float, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its scans.

    Per modality, over the brain's voxels (those where any of the network's modalities is not
    zero), with v the intensity, μ and σ its mean and standard deviation::

        z = clip((v − μ) / σ, −clip, clip)        zscore
        x = (z − min z) / (max z − min z)         zscore_minmax, the paper's (§2.2)
        x = (z + clip) / (2 clip)                 zscore_scaled

    The background becomes exactly 0 in all three. ``zscore_nonzero`` is a ``zscore`` over the
    voxels where the modality itself is not zero, ``zscore_filled`` over the brain with its holes,
    ``zscore_box`` over everything in the brain's box; ``minmax`` scales the whole image, air
    included, to 0 to 1. Without the clip a z-score before a min–max scaling is a mathematical
    no-op; with it a few bright vessels cannot press the brain into the dark, and with
    ``zscore_scaled`` the brightest voxel moves no other.

    In space: turned by flips and axis permutations, then cropped or padded; nothing is resampled
    but for a network that needs it.

    Attributes
    ----------
    modalities
        The network's channels in order; one may occur more than once.
    intensity
        One of :data:`INTENSITIES`.
    size
        3D: the upper bound per turned axis; each axis gets the least multiple of ``divisor`` that
        holds the scan, but not more. None sets no bound. 2D: exactly this size.
    plane
        None for 3D, ``axial`` for a 2D network on slices of the same.
    divisor
        What the network must be able to divide each axis of a 3D input by.
    clip
        In standard deviations; None does not clip.
    spacing_mm
        Smallest and largest voxel edge the network was trained on; others bring a warning.
    orientation
        Where the axes point, as ``RAS`` or ``LPS``; None takes scans as they are stored.
    axis_order
        Which of these axes is the network's first, second and third; ``(2, 1, 0)`` is z, y, x.
    crop_to_brain
        Whether the network sees the brain's box alone.
    voxel_mm
        The voxel edges along the network's axes that it needs; None takes any, for one axis or
        for all.
    resampling
        What is done with a scan of other voxels: ``refuse`` it, or resample it as ``nnunet`` does
        (the brain's box alone); see :class:`~neuroxai.data.resampling.Resampling`.

    Raises
    ------
    ModelError
        If a value makes no sense.

    References
    ----------
    R. A. Zeineldin et al., *Int. J. CARS* 17, 1673–1683 (2022), doi:10.1007/s11548-022-02619-x.

    Examples
    --------
    >>> recipe = Preprocessing(("FLAIR",) * 3, plane="axial", size=(224, 224))
    >>> Preprocessing.from_dict(recipe.to_dict()) == recipe
    True
    """

    modalities: tuple[str, ...]
    intensity: Intensity = "zscore_minmax"
    size: tuple[int, ...] | None = _PAPER_SIZE
    plane: Literal["axial"] | None = None
    divisor: int = 32
    clip: float | None = 5.0
    spacing_mm: tuple[float, float] | None = None
    orientation: str | None = "RAS"
    axis_order: tuple[int, ...] = (0, 1, 2)
    crop_to_brain: bool = False
    voxel_mm: tuple[float | None, ...] | None = None
    resampling: Literal["refuse", "nnunet"] = "refuse"

    def __post_init__(self) -> None:
        for name in ("modalities", "size", "spacing_mm", "axis_order", "voxel_mm"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        if self.plane is not None and self.size == _PAPER_SIZE:
            object.__setattr__(self, "size", (224, 224))
        check_recipe(vars(self))

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON can hold it."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, recipe: Mapping[str, Any]) -> Preprocessing:
        """Read what :meth:`to_dict` wrote; only ``modalities`` must be there.

        Raises
        ------
        ModelError
            If a key is unknown or missing, or a value makes no sense.
        """
        if not isinstance(recipe, Mapping):
            raise ModelError(f"preprocessing is {recipe!r}, expected a table of keys and values")
        known = {field.name: field for field in fields(cls)}
        for key in recipe:
            if key not in known:
                raise ModelError(
                    f"preprocessing has the unknown key '{key}'; {suggestion(key, known)}"
                )
        for name, field in known.items():
            if field.default is MISSING and name not in recipe:
                raise ModelError(f"preprocessing lacks the key '{name}'")
        return cls(**recipe)

    def prepare(
        self,
        case: Case,
        slice_index: int | Literal["truth"] | None = None,
        *,
        mask: NDArray[Any] | None = None,
    ) -> Prepared:
        """Make the network's input of a case.

        Parameters
        ----------
        slice_index
            For a 2D network: the axial slice, counted from the feet, or ``truth`` for the one
            with the largest tumor in the case's truth. None takes ``mask``, else the truth.
        mask
            ``(I, J, K)`` on the case's grid, for example a predicted tumor.

        Raises
        ------
        CaseError
            If the case lacks a modality, a volume is empty, constant or not finite inside the
            brain, or no slice can be chosen.
        """
        turn = self._placement(case)
        volumes = self._volumes(case, turn)
        brain: NDArray[np.bool_] = np.logical_or.reduce([v != 0 for v in volumes.values()])
        warnings = self._oddities(case, turn, brain)
        counted = counted_voxels(self.intensity, brain)
        normalized = {
            name: normalize(f"{case.name}: {name}", volume, counted, self.intensity, self.clip)
            for name, volume in volumes.items()
        }
        if self.plane is None and slice_index is not None:
            raise CaseError(
                f"{case.name}: the network sees the whole volume, slice {slice_index} "
                "cannot be chosen; leave the slice out"
            )
        index = None if self.plane is None else choose_slice(case, slice_index, mask, brain)
        shown = brain if index is None else brain[..., index]
        start, size = self._box(shown)
        placement = self._placement(case, start, size, index)
        resampled = self._resampled(turn, brain)
        if resampled is not None:
            box = bounding_box(brain)
            placement = dataclasses.replace(
                self._placement(case, [s.start for s in box], list(resampled.shape)),
                resampling=resampled,
            )
            warnings.append(
                f"{case.name}: resampled from voxels of {_edges(resampled.mm)} mm to "
                f"{_edges(resampled.grid_mm)} mm for the network; maps and labels are brought back"
            )
        lost = int(shown.sum() - placement.cut(shown).sum())
        if lost:
            warnings.append(
                f"{case.name}: the brain is larger than the network's {_times(size)} voxels, "
                f"{lost} of its {int(shown.sum())} voxels are cut off"
            )
        return Prepared(
            x=self._stacked(normalized, placement),
            placement=placement,
            background_value=tuple(normalized[name][1] for name in self.modalities),
            warnings=tuple(warnings),
        )

    def _placement(
        self,
        case: Case,
        start: list[int] | None = None,
        size: list[int] | None = None,
        slice_index: int | None = None,
    ) -> Placement:
        return Placement.fit(
            case.shape, case.affine, start, size, slice_index, self.orientation, self.axis_order
        )

    def _resampled(self, turn: Placement, brain: NDArray[np.bool_]) -> Resampling | None:
        """Return the way to the voxels that the network needs, None where the scan has them."""
        needed = self._needed_mm(turn)
        if needed is None or self.resampling == "refuse":
            return None
        shape = tuple(edge.stop - edge.start for edge in bounding_box(brain))
        grid = grid_of(shape, turn.spacing, needed)
        if grid == shape:
            return None
        grid = tuple(-(-n // self.divisor) * self.divisor for n in grid)
        return Resampling(shape, turn.spacing, grid, needed)

    def _needed_mm(self, turn: Placement) -> tuple[float, ...] | None:
        """Return the voxel edges that the network needs of this scan, None where it takes any."""
        if self.voxel_mm is None:
            return None
        pairs = zip(self.voxel_mm, turn.spacing, strict=True)
        return tuple(own if needed is None else needed for needed, own in pairs)

    def _volumes(self, case: Case, turn: Placement) -> dict[str, NDArray[np.float32]]:
        missing = [name for name in dict.fromkeys(self.modalities) if name not in case.volumes]
        if missing:
            raise CaseError(
                f"{case.name}: the network needs {', '.join(missing)}, the case has "
                f"{', '.join(case.volumes)}; add the scan or choose another model"
            )
        volumes = {}
        for name in dict.fromkeys(self.modalities):
            volume = turn.turn(np.asarray(case.volumes[name]))
            bad = int(volume.size - np.isfinite(volume).sum())
            if bad:
                raise CaseError(f"{case.name}: {name} holds {bad} voxels that are NaN or infinite")
            volumes[name] = volume
        return volumes

    def _oddities(self, case: Case, turn: Placement, brain: NDArray[np.bool_]) -> list[str]:
        if not brain.any():
            raise CaseError(
                f"{case.name}: {', '.join(dict.fromkeys(self.modalities))} hold no brain, every "
                "voxel is zero; check the skull-stripping"
            )
        needed = self._needed_mm(turn)
        if needed is not None and self.resampling == "refuse":
            lengths = [edge.stop - edge.start for edge in bounding_box(brain)]
            if grid_of(lengths, turn.spacing, needed) != tuple(lengths):
                raise CaseError(
                    f"{case.name}: voxels of {_edges(turn.spacing)} mm along the network's axes, "
                    f"it needs {_edges(needed)} mm; resample the scans first"
                )
        warnings = []
        tilted = obliquity(case.affine) if case.laterality_known else 0.0
        if tilted:
            warnings.append(
                f"{case.name}: the scan is tilted by {tilted:.0f} degrees against the body; it is "
                "taken along its own axes, and sides and planes on pictures go by the nearest ones"
            )
        if brain.all():
            warnings.append(
                f"{case.name}: no voxel is zero, so all of the image counts as brain; "
                "networks for BraTS expect skull-stripped scans with a background of 0"
            )
        if self.spacing_mm is not None:
            low, high = self.spacing_mm
            axes = turn.spacing if self.plane is None else turn.spacing[:2]
            if not all(low - 1e-3 <= mm <= high + 1e-3 for mm in axes):
                warnings.append(
                    f"{case.name}: voxels of {_times(f'{mm:.3g}' for mm in axes)} mm, the network "
                    f"was trained on {low:g} to {high:g} mm; trust its answer less"
                )
        return warnings

    def _box(self, brain: NDArray[np.bool_]) -> tuple[list[int], list[int]]:
        """Return start and size of the network's grid, in RAS voxels."""
        start, size = [], []
        for axis, (length, held) in enumerate(zip(brain.shape, bounding_box(brain), strict=True)):
            if self.crop_to_brain:
                inside = held.stop - held.start
                size.append(-(-inside // self.divisor) * self.divisor)
                start.append(held.start + crop_start(inside, size[axis], 0, inside))
                continue
            if self.plane is not None and self.size is not None:
                size.append(self.size[axis])
            else:
                padded = -(-length // self.divisor) * self.divisor
                size.append(padded if self.size is None else min(padded, self.size[axis]))
            start.append(crop_start(length, size[axis], held.start, held.stop))
        return start, size

    def _stacked(
        self, normalized: Mapping[str, tuple[NDArray[np.float32], float]], placement: Placement
    ) -> torch.Tensor:
        import torch

        channels = []
        for name in self.modalities:
            volume = normalized[name][0]
            if placement.slice_index is not None:
                volume = volume[..., placement.slice_index]
            channels.append(placement.crop(volume))
        return torch.from_numpy(np.stack(channels).astype(np.float32, copy=False))[None]


def truth_on_network_grid(case: Case, placement: Placement) -> NDArray[np.int64]:
    """Return the truth as class indices ``(*S)`` on the network's grid, background where padded.

    Raises
    ------
    CaseError
        If the case has no truth.

    Examples
    --------
    >>> from neuroxai.data.layouts import LAYOUTS
    >>> truth = np.ones((2, 3, 4), dtype=np.uint8)
    >>> scan = {"T1": truth.astype(np.float32)}
    >>> case = Case("a", scan, np.eye(4), LAYOUTS["plain"], truth)
    >>> truth_on_network_grid(case, Placement.fit((2, 3, 4), np.eye(4), size=(2, 3, 3))).shape
    (2, 3, 3)
    """
    if case.truth is None:
        raise CaseError(f"{case.name}: the case has no truth")
    return placement.to_network(case.truth).astype(np.int64)


def _edges(mm: Sequence[float]) -> str:
    return _times(f"{edge:.3g}" for edge in mm)


def _times(numbers: Any) -> str:
    return " x ".join(map(str, numbers))
