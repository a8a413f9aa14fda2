"""What the values of a preprocessing recipe must be, before anything is read with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from neuroxai.core.errors import ModelError
from neuroxai.data.intensity import INTENSITIES


def check_recipe(recipe: Mapping[str, Any]) -> None:
    """Refuse a recipe with a value that makes no sense, or that another one rules out.

    Parameters
    ----------
    recipe
        Every field of a :class:`~neuroxai.data.preprocessing.Preprocessing`.

    Raises
    ------
    ModelError
        Naming the key, what it is and what is expected.
    """
    _check_kind(recipe)
    _check_grid(recipe)
    _check_voxels(recipe)


def _check_kind(recipe: Mapping[str, Any]) -> None:
    names = _are(recipe["modalities"], _is_name)
    _require(names, recipe, "modalities", "names, as ['T1', 'FLAIR']")
    known = recipe["intensity"] in INTENSITIES
    _require(known, recipe, "intensity", f"one of {', '.join(INTENSITIES)}")
    _require(recipe["plane"] in (None, "axial"), recipe, "plane", "null or 'axial'")
    clip = recipe["clip"]
    _require(clip is None or _is_positive(clip), recipe, "clip", "null or above 0")
    scaled = recipe["intensity"] == "zscore_scaled"
    _require(not scaled or clip is not None, recipe, "clip", "above 0, zscore_scaled divides by it")


def _check_grid(recipe: Mapping[str, Any]) -> None:
    flat, size, divisor = recipe["plane"] is not None, recipe["size"], recipe["divisor"]
    _require(_is_count(divisor), recipe, "divisor", "a positive whole number")
    if flat:
        fits, sizes = _are(size, _is_count, 2), "two whole numbers"
    else:
        sizes = f"null or three multiples of {divisor}"
        fits = size is None or (_are(size, _is_count, 3) and all(n % divisor == 0 for n in size))
    _require(fits, recipe, "size", sizes)
    orientation = recipe["orientation"]
    _require(
        orientation == "RAS" or (not flat and _is_orientation(orientation)),
        recipe,
        "orientation",
        "'RAS' for slices, else three letters, as 'LPS', or null",
    )
    order = recipe["axis_order"]
    _require(
        isinstance(order, tuple)
        and sorted(map(str, order)) == ["0", "1", "2"]
        and (not flat or order == (0, 1, 2)),
        recipe,
        "axis_order",
        "[0, 1, 2] for slices, else these in any order",
    )
    cropped = recipe["crop_to_brain"]
    _require(
        isinstance(cropped, bool) and not (flat and cropped),
        recipe,
        "crop_to_brain",
        "true or false, and false for slices",
    )


def _check_voxels(recipe: Mapping[str, Any]) -> None:
    flat, voxel = recipe["plane"] is not None, recipe["voxel_mm"]
    _require(
        voxel is None or (not flat and _are(voxel, _is_edge, 3)),
        recipe,
        "voxel_mm",
        "null or, in 3D, three lengths in mm, of which any may be null",
    )
    _require(
        recipe["resampling"] == "refuse"
        or (recipe["resampling"] == "nnunet" and voxel is not None and recipe["crop_to_brain"]),
        recipe,
        "resampling",
        "'refuse', or 'nnunet' with voxel_mm and crop_to_brain",
    )
    spacing = recipe["spacing_mm"]
    ordered = _are(spacing, _is_positive, 2) and list(spacing or ()) == sorted(spacing or ())
    _require(spacing is None or ordered, recipe, "spacing_mm", "null or [smallest, largest]")


def _require(holds: bool, recipe: Mapping[str, Any], key: str, expected: str) -> None:
    if not holds:
        raise ModelError(f"preprocessing: '{key}' is {recipe[key]!r}, expected {expected}")


def _are(values: object, kind: Callable[[object], bool], count: int | None = None) -> bool:
    return (
        isinstance(values, tuple)
        and len(values) == (len(values) or 1 if count is None else count)
        and all(map(kind, values))
    )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_edge(value: object) -> bool:
    return value is None or _is_positive(value)


def _is_orientation(value: object) -> bool:
    pairs = ("LR", "PA", "IS")
    return value is None or (
        isinstance(value, str)
        and len(value) == 3
        and all(sum(letter in pair for letter in value) == 1 for pair in pairs)
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and value is not True and 0 < value < math.inf
