"""Weights on disk: safetensors alone, exactly the network's names and shapes, finite."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from neuroxai.core.errors import ModelError, suggestion
from neuroxai.models.formats import refuse_code

LARGEST = 4 * 1024**3
"""Bytes of a weight file or tensor, at most."""

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class Weights:
    """What a weight file holds."""

    tensors: Mapping[str, Tensor]
    sha256: str
    """Of the file."""


def read_weights(path: Path) -> Weights:
    """Read a safetensors file, which carries no code.

    Raises
    ------
    ModelError
        If the file is missing, of another kind, unreadable, too large or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    refuse_code(path)
    payload = read_whole(path)
    try:
        tensors: dict[str, Tensor] = load(payload)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: not a safetensors file ({error})") from error
    return Weights(tensors, hashlib.sha256(payload).hexdigest())


def read_whole(path: Path) -> bytes:
    """Read a file that is no larger than a network should be.

    Raises
    ------
    ModelError
        If it is missing, unreadable or too large.
    """
    try:
        if not path.is_file():
            raise ModelError(f"{path}: no such file; the weights were expected there")
        size = path.stat().st_size
        if size > LARGEST:
            raise ModelError(f"{path}: {size} bytes, more than a network should have")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error


def fit(network: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load ``state`` into ``network``, widened to its own types.

    Raises
    ------
    ModelError
        Naming ``source`` and the tensor that is missing, unknown, of another shape or type, or
        not finite.
    """
    expected = network.state_dict()
    state = _with_shared(expected, state)
    for name in expected:
        if name not in state:
            raise ModelError(f"{source}: the tensor {name!r} is missing")
    # A file gives its tensors in any order; the same fault is to be named every time.
    for name in sorted(state):
        if name not in expected:
            raise ModelError(f"{source}: unknown tensor {name!r}; {suggestion(name, expected)}")
    for name, wanted in expected.items():
        value = state[name]
        if value.shape != wanted.shape:
            raise ModelError(
                f"{source}: {name} has shape {tuple(value.shape)}, expected {tuple(wanted.shape)}"
            )
        allowed = _FLOATS if wanted.is_floating_point() else (wanted.dtype,)
        if value.dtype not in allowed:
            raise ModelError(f"{source}: {name} is {value.dtype}, expected {allowed[0]}")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ModelError(f"{source}: {name} holds values that are not finite")
    network.load_state_dict({name: value.to(expected[name]) for name, value in state.items()})


def _with_shared(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state with the names of tensors that are written once though they have several.

    So ``safetensors.torch.save_model`` writes them.
    """
    whole = dict(state)
    written = {_memory_of(expected[name]): name for name in state if name in expected}
    for name, wanted in expected.items():
        if name not in whole and wanted.numel() and _memory_of(wanted) in written:
            whole[name] = state[written[_memory_of(wanted)]]
    return whole


def _memory_of(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype
