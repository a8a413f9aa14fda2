"""Translation of MONAI's dictionary transforms into a preprocessing recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuroxai.core.errors import ModelError

_IGNORED = (
    "LoadImage",
    "EnsureChannelFirst",
    "AsChannelFirst",
    "AddChannel",
    "EnsureType",
    "ToTensor",
    "CastToType",
    "DeleteItems",
    "SelectItems",
    "Identity",
)
"""Transforms that only read or convert; reading a case replaces them."""

_LABELS = frozenset({"label", "labels", "seg", "segmentation", "mask", "pred", "gt", "truth"})
"""Keys of data that is not an input of the network."""


@dataclass
class Recipe:
    """The translation of a chain of transforms.

    Attributes
    ----------
    settings
        Keys of :class:`~neuroxai.data.preprocessing.Preprocessing`.
    notes
        Differences from MONAI, one sentence each.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_transforms(chain: Any, source: Path, channels: int) -> Recipe:
    """Translate the transforms of the image.

    Parameters
    ----------
    chain
        A ``Compose`` mapping, or a list of mappings with the key ``_target_``.
    source
        The configuration file, for error messages.
    channels
        Number of channels of the image.

    Raises
    ------
    ModelError
        If a transform or one of its options is not supported. Ignoring it would explain the
        network on an image that differs from its training data.

    Examples
    --------
    >>> chain = [{"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True,
    ...           "channel_wise": True}]
    >>> read_transforms(chain, Path("a.json"), 4).settings["intensity"]
    'zscore_nonzero'
    """
    recipe = Recipe({"intensity": "none", "orientation": None, "size": None, "clip": None})
    for table in _entries(chain, source):
        options = {k: v for k, v in table.items() if k not in ("keys", "allow_missing_keys")}
        name = str(options.pop("_target_")).rsplit(".", 1)[-1]
        name = name.removesuffix("Dict").removesuffix("D").removesuffix("d")
        if options.pop("_disabled_", False):
            continue
        keys = _keys(table)
        if "image" not in keys:
            others = [key for key in keys if key.lower() not in _LABELS]
            if not others:
                continue
            raise ModelError(
                f"{source}: {table['_target_']} uses the keys {', '.join(others)}; only the key "
                "'image', one image with all modalities, is supported"
            )
        options.pop("_desc_", None)
        if name in _IGNORED:
            continue
        if name not in _KNOWN:
            raise ModelError(
                f"{source}: the transform {table['_target_']} is not supported; supported: "
                f"{', '.join(sorted((*_KNOWN, *_IGNORED)))}"
            )
        problem = _KNOWN[name](options, recipe, channels)
        if problem:
            raise ModelError(f"{source}: {table['_target_']}: {problem}")
    return recipe


def _entries(chain: Any, source: Path) -> Sequence[Mapping[str, Any]]:
    if isinstance(chain, Mapping):
        chain = chain.get("transforms", [])
    if not isinstance(chain, list) or not all(
        isinstance(table, Mapping) and isinstance(table.get("_target_"), str) for table in chain
    ):
        raise ModelError(
            f"{source}: preprocessing is not a list of transforms with _target_; list them"
        )
    return chain


def _keys(table: Mapping[str, Any]) -> tuple[str, ...]:
    keys = table.get("keys", "image")
    return tuple(keys) if isinstance(keys, list) else (str(keys),)


def _check_options(
    options: Mapping[str, Any], allowed: Mapping[str, tuple[Any, ...]]
) -> str | None:
    """Return a description of the first option that is not supported."""
    for key, value in options.items():
        if key not in allowed:
            return f"the option {key!r} is not supported"
        if allowed[key] and value not in allowed[key]:
            return f"{key} is {value!r}, expected {' or '.join(map(repr, allowed[key]))}"
    return None


def _normalize(options: dict[str, Any], recipe: Recipe, channels: int) -> str | None:
    nonzero = bool(options.pop("nonzero", False))
    if not options.pop("channel_wise", False) and channels > 1:
        return "channel_wise is false, expected true: a mean over all modalities is not supported"
    if not nonzero:
        return "nonzero is false, expected true: a mean over the background is not supported"
    if recipe.settings["intensity"] != "none":
        return "a second normalization of intensities is not supported"
    recipe.settings["intensity"] = "zscore_nonzero"
    return _check_options(options, {"subtrahend": (None,), "divisor": (None,), "dtype": ()})


def _orient(options: dict[str, Any], recipe: Recipe, channels: int) -> str | None:
    axcodes = options.pop("axcodes", None)
    if not isinstance(axcodes, str):
        return f"axcodes is {axcodes!r}, expected three axis codes, for example 'RAS'"
    if len({*(recipe.settings.get("voxel_mm") or ())}) > 1:
        return "reorienting after an anisotropic Spacing is not supported; put Orientation first"
    recipe.settings["orientation"] = axcodes
    return _check_options(options, {"as_closest_canonical": (False,), "labels": ()})


def _space(options: dict[str, Any], recipe: Recipe, channels: int) -> str | None:
    pixdim = options.pop("pixdim", None)
    sizes = pixdim if isinstance(pixdim, list) else [pixdim] * 3
    if len(sizes) != 3 or not all(isinstance(mm, int | float) for mm in sizes):
        return f"pixdim is {pixdim!r}, expected three lengths in mm"
    # MONAI does not resample an axis without a length above 0.
    recipe.settings["voxel_mm"] = [float(mm) if mm > 0 else None for mm in sizes]
    return _check_options(
        options,
        {"mode": (), "padding_mode": (), "align_corners": (), "dtype": (), "diagonal": (False,),
         "scale_extent": (), "recompute_affine": (), "min_pixdim": (None,), "max_pixdim": (None,),
         "ensure_same_shape": ()},
    )  # fmt: skip


def _divisible(options: dict[str, Any], recipe: Recipe, channels: int) -> str | None:
    k = options.pop("k", None)
    if isinstance(k, list) and len(set(k)) == 1:
        k = k[0]
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        return f"k is {k!r}, expected one whole number for all axes"
    recipe.settings["divisor"] = k
    return _check_options(options, {"mode": ("constant",), "method": ("symmetric",)})


def _foreground(options: dict[str, Any], recipe: Recipe, channels: int) -> str | None:
    recipe.notes.append(
        "CropForeground is ignored: the network also gets the background around the head"
    )
    return _check_options(
        options,
        {"source_key": ("image",), "margin": (), "k_divisible": (), "allow_smaller": (),
         "start_coord_key": (), "end_coord_key": (), "select_fn": ()},
    )  # fmt: skip


_KNOWN: Mapping[str, Callable[[dict[str, Any], Recipe, int], str | None]] = {
    "NormalizeIntensity": _normalize,
    "Orientation": _orient,
    "Spacing": _space,
    "DivisiblePad": _divisible,
    "CropForeground": _foreground,
}
