"""Reading of safetensors files, and strict loading into a network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from neuroxai.core.errors import ModelError, suggestion
from neuroxai.models.formats import refuse_code
from neuroxai.models.tensor_names import NameMatch, describe_names, match_names

LARGEST = 4 * 1024**3
"""Maximum size of a weight file or a tensor in bytes."""

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class Weights:
    """Content of a weight file."""

    tensors: Mapping[str, Tensor]
    """Tensors by name."""
    sha256: str
    """SHA-256 of the file."""


def read_weights(path: Path) -> Weights:
    """Read a safetensors file, a format that cannot contain code.

    Raises
    ------
    ModelError
        If the file is missing, in another format, unreadable, too large or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    refuse_code(path)
    payload = read_bytes(path)
    try:
        tensors: dict[str, Tensor] = load(payload)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: not a safetensors file ({error})") from error
    return Weights(tensors, hashlib.sha256(payload).hexdigest())


def read_bytes(path: Path) -> bytes:
    """Read a file of at most :data:`LARGEST` bytes.

    Raises
    ------
    ModelError
        If the file is missing, unreadable or too large.
    """
    try:
        if not path.is_file():
            raise ModelError(f"{path}: no such file, expected the network's weights")
        size = path.stat().st_size
        if size > LARGEST:
            raise ModelError(f"{path}: {size} bytes, expected a network of at most {LARGEST}")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error


def load_state(network: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> list[str]:
    """Load ``state`` into ``network`` strictly, converted to the network's data types.

    The names may have a constant prefix, such as ``module.`` or ``student.backbone.``. What
    training stores next to the network (losses, averages, optimizers) is left aside.

    Returns
    -------
    list of str
        One sentence that names what was left aside, or none.

    Raises
    ------
    ModelError
        Naming ``source`` and the tensor that is missing, unknown, not finite, or of the wrong
        shape or type.
    """
    expected = network.state_dict()
    state, aside = _matched(expected, state, source)
    state = _add_shared(expected, state)
    # Sorted, so that the error does not depend on the order of the file.
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
            raise ModelError(f"{source}: {name} has values that are not finite")
    network.load_state_dict({name: value.to(expected[name]) for name, value in state.items()})
    return aside


def _matched(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str | Path
) -> tuple[Mapping[str, Tensor], list[str]]:
    """Return the tensors under the network's names, and a sentence about what was left aside."""
    shared: dict[tuple[object, ...], list[str]] = {}
    for name, wanted in expected.items():
        shared.setdefault(_storage(wanted) if wanted.numel() else (name,), []).append(name)
    groups = list(shared.values())
    match = match_names(groups, state)
    if isinstance(match, NameMatch):
        tensors = {own: state[name] for name, own in match.names.items()}
        if not match.aside:
            return tensors, []
        under = f" those named {match.prefix}* were loaded," if match.prefix else ""
        return tensors, [f"{source}:{under} left aside: {describe_names(match.aside)}"]
    if match:
        raise ModelError(
            f"{source}: has the network's tensors several times, under {', '.join(match)}; choose "
            f"one when converting, for example --entry {match[0].removesuffix('.')}"
        )
    missing = next((group[0] for group in groups if not state.keys() & {*group}), None)
    if missing is None:
        return state, []
    raise ModelError(
        f"{source}: missing tensor {missing!r}; the file has "
        f"{describe_names(sorted(state)) or 'no tensors'}"
    )


def _add_shared(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the names of shared tensors, which ``safetensors.torch.save_model`` writes only once."""
    whole = dict(state)
    written = {_storage(expected[name]): name for name in state if name in expected}
    for name, wanted in expected.items():
        if name not in whole and wanted.numel() and _storage(wanted) in written:
            whole[name] = state[written[_storage(wanted)]]
    return whole


def _storage(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype
