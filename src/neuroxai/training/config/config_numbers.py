"""The range of every number in a training configuration."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from neuroxai.core.errors import TrainingError
from neuroxai.training.config.config import Augmentation, Config

Range = tuple[Callable[[Any], bool], str]
"""What must hold of a value, and how that is said."""

# Every step seeds torch with about a million times the seed, which must stay below 2^64.
_SEEDS = 10**13

# Comparisons that NaN fails: written the other way round they would let it pass.
_ABOVE_0: Range = (lambda value: 0 < value < math.inf, "a number above 0")
_FROM_0: Range = (lambda value: 0 <= value < math.inf, "a number from 0 up")
_SHARE: Range = (lambda value: 0 <= value <= 1, "0 to 1")
_FACTORS: Range = (
    lambda pair: 0 < pair[0] <= pair[1] < math.inf,
    "[smallest, largest], in this order and above 0",
)

_CONFIG: Mapping[str, Range] = {
    **dict.fromkeys(
        (
            "batch",
            "epochs",
            "max_steps",
            "max_minutes",
            "learning_rate",
            "save_every",
            "accumulate",
            "slices_per_case",
            "focus_size",
            "workers",
            "devices",
            "validate_every",
            "patience",
        ),
        _ABOVE_0,
    ),
    **dict.fromkeys(("weight_decay", "focus_steps", "hint", "frozen_epochs"), _FROM_0),
    **dict.fromkeys(("tumor_fraction", "warmup", "average"), _SHARE),
    "clip": (lambda norm: 0 <= norm < math.inf, "a number from 0 up, 0 for no limit"),
    "smallest_enhancement_mm3": (
        # What a network's card holds as well.
        lambda volume: 0 <= volume < 1e9,
        "cubic mm below 1e9, 0 for none",
    ),
    "seed": (lambda seed: 0 <= seed < _SEEDS, f"0 to {_SEEDS - 1}"),
    "class_weights": (
        lambda weights: (
            not weights or (all(0 <= each < math.inf for each in weights) and max(weights) > 0)
        ),
        "numbers from 0 up, at least one above 0",
    ),
}

_AUGMENTATION: Mapping[str, Range] = {
    **dict.fromkeys(("zoom", "gamma", "contrast"), _FACTORS),
    **dict.fromkeys(("rotation", "brightness", "bias", "noise", "blur"), _FROM_0),
    "anisotropy": _ABOVE_0,
    # Steeper curves are no longer monotone.
    "tone": _SHARE,
    "thick_slices": _SHARE,
    "ceiling": (
        lambda pair: 0 < pair[0] <= pair[1] <= 1,
        "[smallest, largest], in this order, above 0 and at most 1",
    ),
}


def check_numbers(config: Config, source: str) -> None:
    """Refuse a number that no run can use, be it endless or not a number at all.

    Raises
    ------
    TrainingError
        Naming ``source``, the key, what it is and what is expected.
    """
    _check(config, "", _CONFIG, source)
    _check(config.augmentation, "augmentation.", _AUGMENTATION, source)
    _check_axes(config, source)
    for key in ("arguments", "preprocessing"):
        _check_plain(getattr(config, key), key, source)


def _check(
    part: Config | Augmentation, place: str, ranges: Mapping[str, Range], source: str
) -> None:
    for key, (holds, expected) in ranges.items():
        value = getattr(part, key)
        if value is not None and not holds(value):
            shown = list(value) if isinstance(value, tuple) else value
            raise TrainingError(f"{source}: {place}{key} is {shown!r}, expected {expected}")


def _check_axes(config: Config, source: str) -> None:
    """Hold to the number of axes what is said of each; a classifier has no patches."""
    flat, flip, patch = config.task == "classification", config.augmentation.flip, config.patch
    if len(flip) != 3 and not (flat and len(flip) == 2):
        expected = "two values for X, Y" if flat else "three values for X, Y, Z"
        raise TrainingError(
            f"{source}: augmentation.flip is {list(flip)}, expected {expected}, each true or false"
        )
    if not flat and (len(patch) != 3 or min(patch) <= 0):
        raise TrainingError(
            f"{source}: patch is {list(patch)}, expected three whole numbers above 0, the edges "
            "along X, Y, Z"
        )


def _check_plain(value: Any, key: str, source: str) -> None:
    """Hold a table of any keys to what a card can hold."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise TrainingError(f"{source}: {key} has the key {name!r}, expected text")
            _check_plain(inner, f"{key}.{name}", source)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _check_plain(inner, f"{key}[{index}]", source)
    elif not isinstance(value, str | int | float | None):
        raise TrainingError(
            f"{source}: {key} is {value!r}, expected a number, text, true, false or null"
        )
    elif isinstance(value, float) and not math.isfinite(value):
        raise TrainingError(f"{source}: {key} is {value!r}, expected a finite number")
