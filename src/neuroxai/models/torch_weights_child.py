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
    if entry:
        if entry not in states:
            known = ", ".join(name or "the whole file" for name in states) or "none"
            raise SystemExit(f"no state dict at {entry!r}; available: {known}")
        chosen = states[entry]
    elif len(states) == 1:
        (chosen,) = states.values()
    else:
        known = ", ".join(states) or "none"
        raise SystemExit(f"it contains {len(states)} state dicts; choose one with --entry: {known}")
    save_file(
        {_without_prefix(name): tensor.contiguous().clone() for name, tensor in chosen.items()}, out
    )


def _numpy_scalars() -> list[Any]:
    """Return the classes that NumPy scalars are pickled with; training logs contain them."""
    import numpy as np

    dtypes = [np.dtype(code) for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")]
    scalar = np.float32(0).__reduce__()[0]
    named = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [np.dtype, *(type(dtype) for dtype in dtypes), *named]


def _state_dicts(content: Any, place: str) -> Any:
    """Yield every mapping of names to tensors, with its key."""
    import torch

    if not isinstance(content, dict) or not content:
        return
    if all(isinstance(v, torch.Tensor) and isinstance(k, str) for k, v in content.items()):
        yield place, content
        return
    for key, value in content.items():
        yield from _state_dicts(value, f"{place}.{key}" if place else str(key))


def _without_prefix(name: str) -> str:
    """Remove the prefixes that wrappers add to a tensor's name."""
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


if __name__ == "__main__":
    main(*sys.argv[1:])
