"""Script of the separate process in :mod:`neuroxai.models.torch_weights`: converts one file."""

from __future__ import annotations

import re
import resource
import sys
from typing import Any

MEMORY = 16 * 1024**3
SECONDS = 240
OUTPUT = 4 * 1024**3
PREFIXES = ("module.", "_orig_mod.")
_SHOWN = 4
_TRAINING = re.compile(
    r"(.*_)?(ema|swa|teacher|optim\w*|loss\w*|criterion|scaler|\w*scheduler\w*|callbacks?)(_.*)?"
)
"""Keys that training writes next to the network; see also ``models.tensor_names``."""


def main(source: str, out: str, entry: str) -> None:
    """Convert a file, or exit with an error message."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT, OUTPUT))
    import torch
    from safetensors.torch import save_file

    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:
        other = re.search(r"Unsupported (?:global|class)[^\w]*(?:GLOBAL )?([\w.]+)", str(error))
        if other:
            raise SystemExit(
                f"it contains objects of the class {other[1]}, not only tensors; save the weights "
                "again with torch.save(network.state_dict(), 'weights.pt')"
            ) from None
        first = str(error).strip().splitlines() or [""]
        raise SystemExit(f"{type(error).__name__}: {first[0][:300]}") from None
    states = dict(_state_dicts(content, ""))
    place, prefix = _chosen(states, entry)
    tensors = states[place]
    aside = list(dict.fromkeys(_apart(name, place) for name in states if name != place))
    if not prefix and tensors:
        prefix = _constant_wrapper(tensors)
    else:
        aside += _outside(tensors, prefix)
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    save_file(
        {name.removeprefix(prefix): tensor.contiguous().clone() for name, tensor in kept.items()},
        out,
        metadata={"left_aside": ", ".join(aside)},
    )


def _chosen(states: dict[str, Any], entry: str) -> tuple[str, str]:
    """Return the place of the state dict to convert, and the prefix of the names to keep."""
    network = [place for place in states if not any(map(_TRAINING.fullmatch, place.split(".")))]
    network = network or list(states)
    known = ", ".join(_described(place, states[place]) for place in network) or "none"
    if not entry:
        if len(network) == 1:
            return network[0], ""
        raise SystemExit(
            f"it contains {len(network)} state dicts; choose one with --entry: {known}"
        )
    if entry in states:
        return entry, ""
    for place in sorted(states, key=len, reverse=True):
        inside = not place or entry.startswith(f"{place}.")
        prefix = f"{entry[len(place) :].lstrip('.')}."
        # The place may be left out if there is only one.
        for each in (prefix,) if inside else (f"{entry}.",) if len(states) == 1 else ():
            if any(name.startswith(each) for name in states[place]):
                return place, each
    raise SystemExit(f"no state dict at {entry!r}; available: {known}")


def _apart(place: str, chosen: str) -> str:
    """Return the shortest part of a place that the chosen place is not in."""
    parts = place.split(".")
    for count in range(1, len(parts)):
        short = ".".join(parts[:count])
        if not f"{chosen}.".startswith(f"{short}."):
            return short
    return place


def _described(place: str, tensors: dict[str, Any]) -> str:
    """Return the place of a state dict with the first parts of its names."""
    first = list(dict.fromkeys(name.partition(".")[0] for name in tensors))
    shown = ", ".join(f"{part}.*" for part in first[:_SHOWN])
    return f"{place or 'the whole file'} ({shown}{', ...' if len(first) > _SHOWN else ''})"


def _constant_wrapper(tensors: dict[str, Any]) -> str:
    """Return the prefix that wrappers added to every name."""
    prefix = ""
    while True:
        longer = [prefix + each for each in PREFIXES]
        found = [each for each in longer if all(name.startswith(each) for name in tensors)]
        if not found:
            return prefix
        prefix = found[0]


def _outside(tensors: dict[str, Any], prefix: str) -> list[str]:
    """Return the first parts of the names that do not begin with the prefix."""
    others = [name for name in tensors if not name.startswith(prefix)]
    return list(dict.fromkeys(f"{name.partition('.')[0]}.*" for name in others))


def _numpy_scalars() -> list[Any]:
    """Return the classes that NumPy scalars are pickled with; training logs contain them."""
    import numpy as np

    dtypes = [np.dtype(code) for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")]
    scalar = np.float32(0).__reduce__()[0]
    named = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [np.dtype, *(type(dtype) for dtype in dtypes), *named]


def _state_dicts(content: Any, place: str) -> Any:
    """Yield every mapping that contains tensors, without its other values, with its key."""
    import torch

    if not isinstance(content, dict):
        return
    nested = [
        found
        for key, value in content.items()
        for found in _state_dicts(value, f"{place}.{key}" if place else str(key))
    ]
    yield from nested
    if not nested:
        tensors = {
            name: value
            for name, value in content.items()
            if isinstance(name, str) and isinstance(value, torch.Tensor)
        }
        if tensors:
            yield place, tensors


if __name__ == "__main__":
    main(*sys.argv[1:])
