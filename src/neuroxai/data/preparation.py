"""Preparation of a case as network input, following a preprocessing recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.box import bounding_box
from neuroxai.core.errors import CaseError
from neuroxai.data.case import Case
from neuroxai.data.grid import obliquity
from neuroxai.data.intensity import normalize, statistics_mask
from neuroxai.data.placement import Placement, crop_start
from neuroxai.data.preprocessing import Preprocessing
from neuroxai.data.resampling import Resampling, resampled_shape
from neuroxai.data.slices import choose_slice
from neuroxai.data.stepwise import run_steps

if TYPE_CHECKING:
    import torch

_SPACING_TOLERANCE_MM = 1e-3
"""Rounding of voxel edges in NIfTI headers stays below this."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case as network input.

    Attributes
    ----------
    x
        float32 tensor ``(1, C, X, Y, Z)``, or ``(1, C, X, Y)`` for an axial slice.
    placement
        Mapping between the network's grid and the patient's.
    background_value
        Per channel the normalized value of air on this scan, whose intensity may be negative, as in
        a CT. After ``zscore`` it is not 0: there, 0 is the mean of the brain.
    warnings
        Unusual properties of the case, one sentence each, starting with the case's name.
    """

    x: torch.Tensor
    placement: Placement
    background_value: tuple[float, ...]
    warnings: tuple[str, ...] = ()


def prepare(
    recipe: Preprocessing,
    case: Case,
    slice_index: int | Literal["truth"] | None = None,
    *,
    mask: NDArray[Any] | None = None,
) -> Prepared:
    """Prepare the network's input; see :meth:`Preprocessing.prepare`."""
    if recipe.plane is None and slice_index is not None:
        raise CaseError(
            f"{case.name}: slice {slice_index} cannot be chosen, because the network takes whole "
            "volumes; leave the slice out"
        )
    reoriented = _place(recipe, case)
    volumes = _read_volumes(recipe, case, reoriented)
    brain: NDArray[np.bool_] = np.logical_or.reduce([v != 0 for v in volumes.values()])
    if not brain.any():
        raise CaseError(
            f"{case.name}: every voxel of {', '.join(volumes)} is zero; check the skull-stripping"
        )
    if recipe.steps is not None:
        return _prepare_steps(recipe, case, volumes, brain, reoriented)
    _check_voxel_size(recipe, case, reoriented, brain)
    normalized = _normalized(recipe, case, volumes, brain)
    index = None if recipe.plane is None else choose_slice(case, slice_index, mask, brain)
    shown = brain if index is None else brain[..., index]
    start, size = _crop_box(recipe, shown)
    resampling = _resampling(recipe, reoriented, brain)
    if resampling is None:
        placement = _place(recipe, case, start, size, index)
    else:
        corner = [side.start for side in bounding_box(brain)]
        cropped = _place(recipe, case, corner, resampling.shape)
        placement = dataclasses.replace(cropped, resampling=resampling)
    return Prepared(
        x=_stack([values for values, _ in normalized], placement),
        placement=placement,
        background_value=tuple(air for _, air in normalized),
        warnings=(
            *_warnings(recipe, case, reoriented, brain),
            *_placement_warnings(case, placement, shown, size),
        ),
    )


def _normalized(
    recipe: Preprocessing,
    case: Case,
    volumes: Mapping[str, NDArray[np.float32]],
    brain: NDArray[np.bool_],
) -> list[tuple[NDArray[np.float32], float]]:
    """Return the normalized volume of each channel, and the normalized value of air."""
    masks: dict[Any, NDArray[np.bool_]] = {}
    done: dict[Any, tuple[NDArray[np.float32], float]] = {}
    channels = list(zip(recipe.modalities, recipe.intensities, strict=True))
    for name, kind in channels:
        if kind not in masks:
            masks[kind] = statistics_mask(kind, brain)
        if (name, kind) not in done:
            label = f"{case.name}: {name}"
            done[name, kind] = normalize(label, volumes[name], masks[kind], kind, recipe.clip)
    return [done[channel] for channel in channels]


def _prepare_steps(
    recipe: Preprocessing,
    case: Case,
    volumes: Mapping[str, NDArray[np.float32]],
    brain: NDArray[np.bool_],
    reoriented: Placement,
) -> Prepared:
    """Prepare the network's input by the recipe's steps."""
    import torch

    for name, volume in volumes.items():
        if volume.min() == volume.max():
            raise CaseError(f"{case.name}: {name} is constant ({volume.min():g}); check the export")
    done = run_steps(recipe, volumes, reoriented)
    whole = np.ones(reoriented.shape, dtype=np.uint8)
    inside = done.placement.to_patient(done.placement.to_network(whole))
    lost = int((brain & (reoriented.reorient(inside) == 0)).sum())
    warnings = _warnings(recipe, case, reoriented, brain)
    for before, after in done.resampled:
        warnings.append(
            f"{case.name}: resampled from voxels of {_millimeters(before)} to "
            f"{_millimeters(after)} for the network; maps and labels are resampled back"
        )
    if lost:
        warnings.append(
            f"{case.name}: {lost} of the {int(brain.sum())} voxels that are not zero are cropped"
        )
    x = np.ascontiguousarray(done.image, dtype=np.float32)
    return Prepared(torch.from_numpy(x)[None], done.placement, done.air, tuple(warnings))


def truth_on_network_grid(case: Case, placement: Placement) -> NDArray[np.int64]:
    """Return the reference labels ``(*S)`` on the network's grid, background where padded.

    Raises
    ------
    CaseError
        If the case has no reference segmentation.

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
        raise CaseError(f"{case.name}: the case has no truth; add a segmentation file")
    return placement.to_network(case.truth).astype(np.int64)


def _place(
    recipe: Preprocessing,
    case: Case,
    start: Sequence[int] | None = None,
    size: Sequence[int] | None = None,
    slice_index: int | None = None,
) -> Placement:
    return Placement.fit(
        case.shape, case.affine, start, size, slice_index, recipe.orientation, recipe.axis_order
    )


def _read_volumes(
    recipe: Preprocessing, case: Case, reoriented: Placement
) -> dict[str, NDArray[np.float32]]:
    """Return the reoriented volumes of the network's modalities."""
    names = tuple(dict.fromkeys(recipe.modalities))
    missing = [name for name in names if name not in case.volumes]
    if missing:
        raise CaseError(
            f"{case.name}: the network needs {', '.join(missing)}, the case has "
            f"{', '.join(case.volumes)}; add the scan or choose another model"
        )
    volumes = {}
    for name in names:
        volume = reoriented.reorient(np.asarray(case.volumes[name]))
        invalid = int(volume.size - np.isfinite(volume).sum())
        if invalid:
            raise CaseError(
                f"{case.name}: {name} has {invalid} voxels that are NaN or infinite; check the "
                "export"
            )
        volumes[name] = volume
    return volumes


def _required_mm(recipe: Preprocessing, reoriented: Placement) -> tuple[float, ...] | None:
    """Return the voxel edges that the network requires of this scan, None if it accepts any."""
    if recipe.voxel_mm is None:
        return None
    pairs = zip(recipe.voxel_mm, reoriented.spacing, strict=True)
    return tuple(own if required is None else required for required, own in pairs)


def _check_voxel_size(
    recipe: Preprocessing, case: Case, reoriented: Placement, brain: NDArray[np.bool_]
) -> None:
    """Raise if the scan would need resampling and the recipe does not resample."""
    required = _required_mm(recipe, reoriented)
    if required is None or recipe.resampling != "refuse":
        return
    shape = _box_shape(brain)
    if resampled_shape(shape, reoriented.spacing, required) != shape:
        raise CaseError(
            f"{case.name}: voxels of {_millimeters(reoriented.spacing)} along the network's axes, "
            f"expected {_millimeters(required)}; resample the scans first"
        )


def _resampling(
    recipe: Preprocessing, reoriented: Placement, brain: NDArray[np.bool_]
) -> Resampling | None:
    """Return the resampling of the brain's bounding box, None if it has the required voxels."""
    required = _required_mm(recipe, reoriented)
    if required is None or recipe.resampling == "refuse":
        return None
    shape = _box_shape(brain)
    grid = resampled_shape(shape, reoriented.spacing, required)
    if grid == shape:
        return None
    there, back = recipe.resampling_orders
    return Resampling(
        shape, reoriented.spacing, _padded(grid, recipe.divisor), required,
        order=there, order_back=back, separate=recipe.separate_slices,
    )  # fmt: skip


def _crop_box(recipe: Preprocessing, brain: NDArray[np.bool_]) -> tuple[list[int], list[int]]:
    """Return start and size of the network's grid, in voxels of the reoriented scan."""
    start, size = [], []
    for axis, (length, held) in enumerate(zip(brain.shape, bounding_box(brain), strict=True)):
        if recipe.crop_to_brain:
            inside = held.stop - held.start
            (edge,) = _padded((inside,), recipe.divisor)
            start.append(held.start + crop_start(inside, edge, 0, inside))
        else:
            edge = _edge(recipe, axis, length)
            start.append(crop_start(length, edge, held.start, held.stop))
        size.append(edge)
    return start, size


def _edge(recipe: Preprocessing, axis: int, length: int) -> int:
    if recipe.plane is not None and recipe.size is not None:
        return recipe.size[axis]
    (padded,) = _padded((length,), recipe.divisor)
    return padded if recipe.size is None else min(padded, recipe.size[axis])


def _padded(shape: Sequence[int], divisor: int) -> tuple[int, ...]:
    """Round each edge up to a multiple of ``divisor``."""
    return tuple(-(-edge // divisor) * divisor for edge in shape)


def _box_shape(brain: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(side.stop - side.start for side in bounding_box(brain))


def _warnings(
    recipe: Preprocessing, case: Case, reoriented: Placement, brain: NDArray[np.bool_]
) -> list[str]:
    """Return warnings about the scan itself."""
    warnings = []
    tilt = obliquity(case.affine) if case.laterality_known else 0.0
    if tilt:
        warnings.append(
            f"{case.name}: the scan is tilted by {tilt:.0f} degrees; it is used along its own "
            "axes, and sides and planes in figures are those of the nearest anatomical axes"
        )
    if brain.all():
        warnings.append(
            f"{case.name}: no voxel is zero, so the whole image counts as brain; "
            "networks for BraTS expect skull-stripped scans with a background of 0"
        )
    if recipe.spacing_mm is not None:
        low, high = recipe.spacing_mm
        axes = reoriented.spacing if recipe.plane is None else reoriented.spacing[:2]
        tolerance = _SPACING_TOLERANCE_MM
        if not all(low - tolerance <= mm <= high + tolerance for mm in axes):
            warnings.append(
                f"{case.name}: voxels of {_millimeters(axes)}, but the network was trained on "
                f"{low:g} to {high:g} mm; its output may be less reliable"
            )
    return warnings


def _placement_warnings(
    case: Case, placement: Placement, shown: NDArray[np.bool_], size: Sequence[int]
) -> list[str]:
    """Return warnings about what cropping and resampling change."""
    warnings = []
    if placement.resampling is not None:
        resampling = placement.resampling
        warnings.append(
            f"{case.name}: resampled from voxels of {_millimeters(resampling.mm)} to "
            f"{_millimeters(resampling.grid_mm)} for the network; maps and labels are resampled "
            "back"
        )
    lost = int(shown.sum() - placement.crop_or_pad(shown).sum())
    if lost:
        warnings.append(
            f"{case.name}: the brain is larger than the network's input of {_times(size)} voxels; "
            f"{lost} of its {int(shown.sum())} voxels are cropped"
        )
    return warnings


def _stack(volumes: Iterable[NDArray[np.float32]], placement: Placement) -> torch.Tensor:
    """Return the channels ``(1, C, *S)`` on the network's grid."""
    import torch

    channels = []
    for volume in volumes:
        shown = volume if placement.slice_index is None else volume[..., placement.slice_index]
        channels.append(placement.reoriented_to_network(shown))
    return torch.from_numpy(np.stack(channels).astype(np.float32, copy=False))[None]


def _millimeters(edges: Sequence[float]) -> str:
    return f"{_times(f'{edge:.3g}' for edge in edges)} mm"


def _times(numbers: Iterable[object]) -> str:
    return " x ".join(map(str, numbers))
