"""Translation of single MONAI transforms into steps of ``neuroxai.data.steps``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Table = dict[str, Any]
Known = Mapping[str, list[int] | None]
"""Keys of images with the indices of their channels, None for all channels."""

THRESHOLD = re.compile(r"\$\s*lambda\s+(\w+)\s*:\s*\1\s*>\s*(-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\s*")
"""Expression of a threshold, which is read as data."""
_ALLOWED_TO_BE_SMALLER = (1, 5)
"""Release of MONAI from which the margin of CropForeground is padded by default."""
_INTERPOLATION = {
    "bilinear": "linear", "trilinear": "linear", "linear": "linear", "nearest": "nearest",
    0: "nearest", 1: "linear", 3: "cubic",
}  # fmt: skip
_EDGE = {"border": "edge", "nearest": "edge", "zeros": "zero"}


class UnsupportedError(ValueError):
    """An option that is not supported, in words."""


class Options:
    """Options of a transform that are taken one by one; what is left is not supported.

    Examples
    --------
    >>> options = Options({"k": 4})
    >>> options.take("k"), options.take("mode", "constant")
    (4, 'constant')
    >>> options.finish()
    """

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._left = dict(table)

    def take(self, key: str, default: Any = None) -> Any:
        """Remove and return an option."""
        return self._left.pop(key, default)

    def only(self, key: str, *allowed: Any) -> None:
        """Remove an option that must be absent or one of ``allowed``.

        Raises
        ------
        UnsupportedError
            If it is something else.
        """
        value = self._left.pop(key, allowed[0])
        if value not in allowed:
            raise UnsupportedError(
                f"{key} is {value!r}, expected {' or '.join(map(repr, allowed))}"
            )

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Remove and return an option that is true or false.

        Raises
        ------
        UnsupportedError
            If it is something else.
        """
        value = self._left.pop(key, default)
        if not isinstance(value, bool):
            raise UnsupportedError(f"{key} is {value!r}, expected true or false")
        return value

    def number(self, key: str, default: float | None = None) -> float | None:
        """Remove and return a number, or None.

        Raises
        ------
        UnsupportedError
            If it is something else.
        """
        value = self._left.pop(key, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UnsupportedError(f"{key} is {value!r}, expected a number")
        return float(value)

    def ignore(self, *keys: str) -> None:
        """Remove options that do not change the image."""
        for key in keys:
            self._left.pop(key, None)

    def finish(self) -> None:
        """Raise if an option is left.

        Raises
        ------
        UnsupportedError
            Naming the first one.
        """
        for key in self._left:
            raise UnsupportedError(f"the option {key!r} is not supported")


def _three(options: Options, key: str, kind: str, default: Any = None) -> list[Any]:
    """Return an option as three values."""
    value = options.take(key, default)
    values = list(value) if isinstance(value, list | tuple) else [value] * 3
    numbers = (int, float) if kind == "lengths in mm" else (int,)
    if len(values) != 3 or not all(
        each is None or (isinstance(each, numbers) and not isinstance(each, bool))
        for each in values
    ):
        raise UnsupportedError(f"{key} is {value!r}, expected three {kind}")
    return values


def _lengths(options: Options, key: str) -> list[int | None]:
    """Return three sizes; MONAI keeps an axis whose size is not above 0."""
    values = _three(options, key, "lengths in voxels")
    if all(value is None for value in values):
        raise UnsupportedError(f"{key} is missing, expected three lengths in voxels")
    return [value if value is not None and value > 0 else None for value in values]


def _normalize(options: Options) -> Table:
    nonzero, by_channel = options.flag("nonzero"), options.flag("channel_wise")
    step: Table = {"step": "normalize", "nonzero": nonzero, "joint": not by_channel}
    for theirs, ours in (("subtrahend", "subtract"), ("divisor", "divide")):
        value = options.take(theirs)
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values) or (
            isinstance(value, list) and not by_channel
        ):
            raise UnsupportedError(
                f"{theirs} is {value!r}, expected a number, or with channel_wise one per channel"
            )
        step[ours] = [float(v) for v in values]
    options.ignore("dtype")
    return step


def _scale(options: Options) -> Table:
    low, high = options.number("minv", 0.0), options.number("maxv", 1.0)
    factor, by_channel = options.number("factor"), options.flag("channel_wise")
    options.ignore("dtype")
    if low is None and high is None:
        end = 1 + (factor or 0.0)
        return {"step": "scale_range", "from_low": 0.0, "from_high": 1.0, "low": 0.0, "high": end}
    return {"step": "scale", "low": low, "high": high, "joint": not by_channel}


def _scale_range(options: Options) -> Table:
    step = {
        "step": "scale_range",
        "from_low": _required(options, "a_min"),
        "from_high": _required(options, "a_max"),
        "low": options.number("b_min"),
        "high": options.number("b_max"),
        "clip": options.flag("clip"),
    }
    options.ignore("dtype")
    return step


def _scale_percentiles(options: Options) -> Table:
    step = {
        "step": "scale_percentiles",
        "lower": _required(options, "lower"),
        "upper": _required(options, "upper"),
        "low": options.number("b_min"),
        "high": options.number("b_max"),
        "clip": options.flag("clip"),
        "relative": options.flag("relative"),
        "joint": not options.flag("channel_wise"),
    }
    options.ignore("dtype")
    return step


def _clip_percentiles(options: Options) -> Table:
    lower, upper = options.number("lower"), options.number("upper")
    options.only("sharpness_factor", None)
    options.ignore("dtype", "return_clipping_values")
    return {
        "step": "clip_percentiles",
        "lower": 0.0 if lower is None else lower,
        "upper": 100.0 if upper is None else upper,
        "joint": not options.flag("channel_wise"),
    }


def _required(options: Options, key: str) -> float:
    value = options.number(key)
    if value is None:
        raise UnsupportedError(f"{key} is missing, expected a number")
    return value


def _orient(options: Options, known: Known, version: tuple[int, ...]) -> list[Table]:
    axes = options.take("axcodes")
    if options.flag("as_closest_canonical"):
        axes = "RAS"
    axes = "".join(axes) if isinstance(axes, list) else axes
    if not isinstance(axes, str) or len(axes) != 3:
        raise UnsupportedError(f"axcodes is {axes!r}, expected three axis codes, for example 'RAS'")
    options.only("labels", None, [["L", "R"], ["P", "A"], ["I", "S"]])
    return [{"step": "orient", "axes": axes}]


def _resample(options: Options, known: Known, version: tuple[int, ...]) -> list[Table]:
    edges = _three(options, "pixdim", "lengths in mm")
    if all(mm is None for mm in edges):
        raise UnsupportedError("pixdim is missing, expected three lengths in mm")
    step: Table = {"step": "resample", "mm": [_above_zero(mm) for mm in edges]}
    for theirs, ours in (("min_pixdim", "min_mm"), ("max_pixdim", "max_mm")):
        limits = _three(options, theirs, "lengths in mm")
        if any(limit is not None for limit in limits):
            step[ours] = [_above_zero(limit) for limit in limits]
    step["interpolation"] = _one_of(options, "mode", "bilinear", _INTERPOLATION)
    step["outside"] = _one_of(options, "padding_mode", "border", _EDGE)
    for key in ("diagonal", "scale_extent"):
        options.only(key, False)
    # Positions are the same with aligned corners, and the affine is recomputed for the file only.
    options.ignore("align_corners", "dtype", "recompute_affine", "ensure_same_shape")
    return [step]


def _resize(options: Options, known: Known, version: tuple[int, ...]) -> list[Table]:
    step: Table = {"step": "resize"}
    size_mode = options.take("size_mode", "all")
    if size_mode == "longest":
        longest = options.take("spatial_size")
        if isinstance(longest, bool) or not isinstance(longest, int) or longest < 1:
            raise UnsupportedError(
                f"spatial_size is {longest!r}, expected the longest edge in voxels"
            )
        step["longest"] = longest
    elif size_mode == "all":
        step["size"] = _lengths(options, "spatial_size")
    else:
        raise UnsupportedError(f"size_mode is {size_mode!r}, expected 'all' or 'longest'")
    modes = {
        "area": "area", "nearest": "nearest", "nearest-exact": "nearest_exact",
        "trilinear": "linear", "linear": "linear", "bilinear": "linear",
    }  # fmt: skip
    step["interpolation"] = _one_of(options, "mode", "area", modes)
    step["align_corners"] = bool(options.take("align_corners"))
    options.only("anti_aliasing", False)
    options.ignore("anti_aliasing_sigma", "dtype")
    return [step]


def _crop_foreground(options: Options, known: Known, version: tuple[int, ...]) -> list[Table]:
    source, function = options.take("source_key", "image"), options.take("select_fn")
    if source not in known:
        raise UnsupportedError(f"source_key is {source!r}, expected one of {', '.join(known)}")
    threshold = THRESHOLD.fullmatch(str(function))
    positive = function is None or str(function).rpartition(".")[2] == "is_positive"
    if not positive and not threshold:
        raise UnsupportedError(
            f"select_fn is {function!r}, expected a threshold such as '$lambda x: x > 0'"
        )
    channels = options.take("channel_indices")
    listed = [channels] if isinstance(channels, int) else channels
    margin = _three(options, "margin", "numbers of voxels", 0)
    padded_by_default = not version or version >= _ALLOWED_TO_BE_SMALLER
    step: Table = {
        "step": "crop_foreground",
        "channels": known[source] if listed is None else listed,
        "above": float(threshold[2]) if threshold else 0.0,
        "margin": margin,
        "inside": options.flag("allow_smaller", default=not padded_by_default),
        "multiple_of": _multiples(options, "k_divisible"),
        "value": _padding(options),
    }
    options.ignore("start_coord_key", "end_coord_key", "return_coords")
    return [step]


def _pad(options: Options, known: Known, version: tuple[int, ...]) -> list[Table]:
    size = _lengths(options, "spatial_size")
    return [{"step": "pad", "size": size, "side": _side(options), "value": _padding(options)}]


def _pad_to_multiple(options: Options, known: Known, version: tuple[int, ...]) -> list[Table]:
    of = _multiples(options, "k")
    side = _side(options)
    return [{"step": "pad_to_multiple", "of": of, "side": side, "value": _padding(options)}]


def _center_crop(options: Options, known: Known, version: tuple[int, ...]) -> list[Table]:
    return [{"step": "center_crop", "size": _lengths(options, "roi_size")}]


def _crop_or_pad(options: Options, known: Known, version: tuple[int, ...]) -> list[Table]:
    size = _lengths(options, "spatial_size")
    pad = {"step": "pad", "size": size, "side": _side(options), "value": _padding(options)}
    return [{"step": "center_crop", "size": size}, pad]


def _multiples(options: Options, key: str) -> list[int]:
    return [max(k or 1, 1) for k in _three(options, key, "whole numbers", 1)]


def _side(options: Options) -> str:
    return _one_of(options, "method", "symmetric", {"symmetric": "both", "end": "end"})


def _padding(options: Options) -> float:
    """Return the value of constant padding."""
    options.only("mode", "constant")
    values = [options.number(key, 0.0) for key in ("value", "constant_values")]
    return next((value for value in values if value), 0.0)


def _above_zero(mm: float | None) -> float | None:
    return float(mm) if mm is not None and mm > 0 else None


def _one_of(options: Options, key: str, default: str, names: Mapping[Any, str]) -> str:
    value = options.take(key, default)
    if isinstance(value, list | dict) or value not in names:
        raise UnsupportedError(f"{key} is {value!r}, expected one of {', '.join(map(repr, names))}")
    return names[value]


INTENSITY: Mapping[str, Callable[[Options], Table]] = {
    "NormalizeIntensity": _normalize,
    "ScaleIntensity": _scale,
    "ScaleIntensityRange": _scale_range,
    "ScaleIntensityRangePercentiles": _scale_percentiles,
    "ClipIntensityPercentiles": _clip_percentiles,
}
"""Transforms of intensities, as one step."""
SPATIAL: Mapping[str, Callable[[Options, Known, tuple[int, ...]], list[Table]]] = {
    "Orientation": _orient,
    "Spacing": _resample,
    "Resize": _resize,
    "CropForeground": _crop_foreground,
    "CenterSpatialCrop": _center_crop,
    "ResizeWithPadOrCrop": _crop_or_pad,
    "SpatialPad": _pad,
    "DivisiblePad": _pad_to_multiple,
}
"""Transforms of the grid, as steps."""
