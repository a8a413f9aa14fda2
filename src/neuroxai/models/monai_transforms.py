"""A chain of MONAI's dictionary transforms as a recipe of ours, which can be undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuroxai.core.errors import ModelError

_NOTHING = (
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
"""Transforms that read or convert, and that our own reading stands for."""

_LABELS = frozenset({"label", "labels", "seg", "segmentation", "mask", "pred", "gt", "truth"})
"""Keys of what is no input of the network."""


@dataclass
class Recipe:
    """What a chain of transforms asks for.

    Attributes
    ----------
    settings
        Keys of our preprocessing.
    notes
        What is done otherwise than in MONAI, a sentence each.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_transforms(chain: Any, source: Path, channels: int) -> Recipe:
    """Translate what happens to the image before the network.

    Parameters
    ----------
    chain
        A ``Compose`` table, or a list of tables with ``_target_``.
    source
        The configuration's file, for messages.
    channels
        How many the image has.

    Raises
    ------
    ModelError
        If a transform is unknown, or has an option that cannot be translated: a map on another
        image than the network saw would be wrong.

    Examples
    --------
    >>> chain = [{"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True,
    ...           "channel_wise": True}]
    >>> read_transforms(chain, Path("a.json"), 4).settings["intensity"]
    'zscore_nonzero'
    """
    recipe = Recipe({"intensity": "none", "orientation": None, "size": None, "clip": None})
    for table in _tables(chain, source):
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
                f"{source}: {table['_target_']} works on {', '.join(others)}; only chains on one "
                "image with all modalities, under the key 'image', are read"
            )
        options.pop("_desc_", None)
        if name in _NOTHING:
            continue
        if name not in _KNOWN:
            raise ModelError(
                f"{source}: the transform {table['_target_']} is unknown here, so the network's "
                f"input cannot be made; known: {', '.join(sorted((*_KNOWN, *_NOTHING)))}"
            )
        complaint = _KNOWN[name](options, recipe, channels)
        if complaint:
            raise ModelError(f"{source}: {table['_target_']}: {complaint}")
    return recipe


def _tables(chain: Any, source: Path) -> Sequence[Mapping[str, Any]]:
    if isinstance(chain, Mapping):
        chain = chain.get("transforms", [])
    if not isinstance(chain, list) or not all(
        isinstance(table, Mapping) and isinstance(table.get("_target_"), str) for table in chain
    ):
        raise ModelError(f"{source}: preprocessing is no list of transforms with _target_")
    return chain


def _keys(table: Mapping[str, Any]) -> tuple[str, ...]:
    keys = table.get("keys", "image")
    return tuple(keys) if isinstance(keys, list) else (str(keys),)


def _unread(options: Mapping[str, Any], allowed: Mapping[str, tuple[Any, ...]]) -> str | None:
    """Return a complaint about the first option with a value that changes the meaning."""
    for key, value in options.items():
        if key not in allowed:
            return f"the option {key!r} is unknown here"
        if allowed[key] and value not in allowed[key]:
            return f"{key} is {value!r}, expected {' or '.join(map(repr, allowed[key]))}"
    return None


def _normalize(options: dict[str, Any], recipe: Recipe, channels: int) -> str | None:
    nonzero = bool(options.pop("nonzero", False))
    if not options.pop("channel_wise", False) and channels > 1:
        return "without channel_wise the modalities share one mean, which is not supported"
    if not nonzero:
        return "nonzero must be true: a mean over the air is not supported"
    if recipe.settings["intensity"] != "none":
        return "a second change of intensities is not supported"
    recipe.settings["intensity"] = "zscore_nonzero"
    return _unread(options, {"subtrahend": (None,), "divisor": (None,), "dtype": ()})


def _orient(options: dict[str, Any], recipe: Recipe, channels: int) -> str | None:
    axcodes = options.pop("axcodes", None)
    if not isinstance(axcodes, str):
        return f"axcodes is {axcodes!r}, expected three letters"
    if len({*(recipe.settings.get("voxel_mm") or ())}) > 1:
        return "after Spacing with other lengths for each axis it is not supported"
    recipe.settings["orientation"] = axcodes
    return _unread(options, {"as_closest_canonical": (False,), "labels": ()})


def _space(options: dict[str, Any], recipe: Recipe, channels: int) -> str | None:
    pixdim = options.pop("pixdim", None)
    sizes = pixdim if isinstance(pixdim, list) else [pixdim] * 3
    if len(sizes) != 3 or not all(isinstance(mm, int | float) for mm in sizes):
        return f"pixdim is {pixdim!r}, expected three lengths in mm"
    # MONAI keeps an axis' voxels as they are where no length above 0 is given.
    recipe.settings["voxel_mm"] = [float(mm) if mm > 0 else None for mm in sizes]
    return _unread(
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
    return _unread(options, {"mode": ("constant",), "method": ("symmetric",)})


def _foreground(options: dict[str, Any], recipe: Recipe, channels: int) -> str | None:
    recipe.notes.append("CropForeground is left out: the network sees the air around the head too")
    return _unread(
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
