"""Run alone, by :mod:`neuroxai.models.torch_weights`: reads one file, writes one file."""

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
    """Convert, or leave with a sentence."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT, OUTPUT))
    import torch
    from safetensors.torch import save_file

    try:
        with torch.serialization.safe_globals(_numbers()):
            found = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:
        other = re.search(r"Unsupported (?:global|class)[^\w]*(?:GLOBAL )?([\w.]+)", str(error))
        if other:
            raise SystemExit(
                f"it holds objects of the class {other[1]}, not tensors alone: where it was made, "
                "write the weights with torch.save(network.state_dict(), 'weights.pt')"
            ) from None
        first = str(error).strip().splitlines() or [""]
        raise SystemExit(f"{type(error).__name__}: {first[0][:300]}") from None
    tables = dict(_tables(found, ""))
    if entry:
        if entry not in tables:
            known = ", ".join(name or "the whole file" for name in tables) or "none"
            raise SystemExit(f"there is no table of tensors at {entry!r}; there is: {known}")
        chosen = tables[entry]
    elif len(tables) == 1:
        (chosen,) = tables.values()
    else:
        known = ", ".join(tables) or "none"
        raise SystemExit(f"it holds {len(tables)} tables of tensors, choose by --entry: {known}")
    save_file({_plain(name): tensor.contiguous().clone() for name, tensor in chosen.items()}, out)


def _numbers() -> list[Any]:
    """Return what NumPy's plain numbers are pickled with; training logs are full of them."""
    import numpy as np

    kinds = [np.dtype(word) for word in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")]
    scalar = np.float32(0).__reduce__()[0]
    named = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [np.dtype, *(type(kind) for kind in kinds), *named]


def _tables(found: Any, place: str) -> Any:
    """Yield every table whose values are all tensors, with its place."""
    import torch

    if not isinstance(found, dict) or not found:
        return
    if all(isinstance(v, torch.Tensor) and isinstance(k, str) for k, v in found.items()):
        yield place, found
        return
    for key, value in found.items():
        yield from _tables(value, f"{place}.{key}" if place else str(key))


def _plain(name: str) -> str:
    """Return a tensor's name without what wrappers put before it."""
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


if __name__ == "__main__":
    main(*sys.argv[1:])
