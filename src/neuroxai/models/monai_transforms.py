"""Translation of MONAI's dictionary transforms into the steps of a preprocessing recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuroxai.core.errors import ModelError
from neuroxai.models.monai_steps import INTENSITY, SPATIAL, Options, UnsupportedError

_IGNORED = (
    "LoadImage",
    "EnsureChannelFirst",
    "AsChannelFirst",
    "AddChannel",
    "EnsureType",
    "ToTensor",
    "ToDevice",
    "CastToType",
    "DeleteItems",
    "SelectItems",
    "Identity",
)
"""Transforms that only read or convert; reading a case replaces them."""

_LABELS = frozenset({"label", "labels", "seg", "segmentation", "mask", "pred", "gt", "truth"})
"""Keys of data that is not an input of the network."""
_INPUT = "image"
"""Key of the network's input."""
_PER_KEY = ("mode", "padding_mode", "align_corners", "dtype")
"""Options that can be lists with one value per key."""


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

    @property
    def reorients(self) -> bool:
        """Whether the image is reoriented."""
        steps = self.settings["steps"]
        return self.settings["orientation"] is not None or any(
            step["step"] == "orient" for step in steps
        )


def read_transforms(
    chain: Any, source: Path, channels: int, *, version: tuple[int, ...] = ()
) -> Recipe:
    """Translate the transforms of the image.

    Parameters
    ----------
    chain
        A ``Compose`` mapping, or a list of mappings with the key ``_target_``.
    source
        The configuration file, for error messages.
    channels
        Number of channels of the image.
    version
        Release of MONAI that the bundle was made with, empty if unknown; some defaults changed.

    Raises
    ------
    ModelError
        If a transform or one of its options is not supported. Ignoring it would explain the
        network on an image that differs from its training data.

    Examples
    --------
    >>> chain = [{"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True,
    ...           "channel_wise": True}]
    >>> read_transforms(chain, Path("a.json"), 4).settings["steps"]
    [{'step': 'normalize', 'nonzero': True, 'joint': False}]
    """
    entries = [table for table in _entries(chain, source) if not table.get("_disabled_", False)]
    recipe = Recipe({"orientation": None, "steps": []})
    images = _keys_of_images(entries, source, channels)
    single = images is not None
    known = {_INPUT: None} if images is None else {key: [i] for i, key in enumerate(images)}
    for table in entries:
        name, keys = _name(table), _keys(table)
        if name == "ConcatItems":
            if any(key in known for key in keys):
                known, single = {str(table.get("name")): None}, False
            continue
        used = [key for key in keys if key in known]
        # Modalities are not used any more once they are concatenated.
        spent = {*_LABELS, *(images or ())}
        others = [key for key in keys if key not in known and not {key, key.lower()} & spent]
        if name in _IGNORED and (used or not others):
            continue
        if not used and not others:
            continue
        if not used:
            raise ModelError(
                f"{source}: {table['_target_']} uses the keys {', '.join(others)}; expected "
                f"{', '.join(known)}, the network's input"
            )
        if name not in INTENSITY and name not in SPATIAL:
            supported = sorted((*INTENSITY, *SPATIAL, *_IGNORED, "ConcatItems"))
            raise ModelError(
                f"{source}: the transform {table['_target_']} is not supported; supported: "
                f"{', '.join(supported)}; with other preprocessing, load the network with --model "
                "package.module:factory and a card"
            )
        try:
            _add(recipe, name, _options(table, used[0]), used, (known, single, version))
        except UnsupportedError as reason:
            raise ModelError(f"{source}: {table['_target_']}: {reason}") from reason
    return recipe


def _add(
    recipe: Recipe,
    name: str,
    options: Options,
    used: Sequence[str],
    state: tuple[Mapping[str, list[int] | None], bool, tuple[int, ...]],
) -> None:
    """Add the steps of one transform; ``state`` is the keys, whether they are single channels."""
    known, single, version = state
    steps: list[dict[str, Any]] = recipe.settings["steps"]
    if name in INTENSITY:
        found = INTENSITY[name](options)
        if single:
            # Every key is an image of its own, so statistics are never joint.
            channels = sorted(channel for key in used for channel in known[key] or ())
            found.pop("joint", None)
            if len(channels) < len(known):
                found["channels"] = channels
        steps.append(found)
    else:
        made = SPATIAL[name](options, known, version)
        if len(used) < len(known):
            raise UnsupportedError(
                f"changes the grid of {', '.join(used)} only; expected all of {', '.join(known)}"
            )
        spatial = [step for step in steps if not _is_intensity(step)]
        if made and made[0]["step"] == "orient" and not spatial and not recipe.reorients:
            recipe.settings["orientation"] = made[0]["axes"]
        else:
            steps.extend(made)
    options.finish()


def _is_intensity(step: Mapping[str, Any]) -> bool:
    return str(step["step"]).startswith(("normalize", "scale", "clip"))


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


def _keys_of_images(
    entries: Sequence[Mapping[str, Any]], source: Path, channels: int
) -> tuple[str, ...] | None:
    """Return the keys of single modalities that are concatenated, None if there are none."""
    joined = [
        table
        for table in entries
        if _name(table) == "ConcatItems" and not _LABELS.issuperset(map(str.lower, _keys(table)))
    ]
    if not joined:
        return None
    table, keys = joined[0], _keys(joined[0])
    where = f"{source}: {table['_target_']}"
    if len(joined) > 1 or table.get("dim", 0) != 0:
        raise ModelError(f"{where}: expected one that joins the channels, along dim 0")
    if len(keys) != channels:
        raise ModelError(
            f"{where} joins {', '.join(keys)}, but channel_def of the metadata has {channels} "
            "channels; name as many"
        )
    return keys


def _name(table: Mapping[str, Any]) -> str:
    name = str(table["_target_"]).rsplit(".", 1)[-1]
    return name.removesuffix("Dict").removesuffix("D").removesuffix("d")


def _keys(table: Mapping[str, Any]) -> tuple[str, ...]:
    keys = table.get("keys", _INPUT)
    return tuple(map(str, keys)) if isinstance(keys, list) else (str(keys),)


def _options(table: Mapping[str, Any], key: str) -> Options:
    """Return the options of a transform; of lists with one value per key, the value of ``key``."""
    keys = _keys(table)
    options = {
        name: value
        for name, value in table.items()
        if name not in ("_target_", "_desc_", "_disabled_", "keys", "allow_missing_keys", "lazy")
    }
    for name in _PER_KEY:
        value = options.get(name)
        if isinstance(value, list) and len(value) == len(keys):
            options[name] = value[keys.index(key)]
    return Options(options)
