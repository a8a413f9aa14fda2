"""Checkpoints: a folder of ``model.safetensors`` and ``card.json``, which carries no code."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from neuroxai.core.errors import ModelError, OutputError, suggestion
from neuroxai.models.card import Card, read_card
from neuroxai.models.deepseg import DeepSeg
from neuroxai.models.resnet import ResNet50

ARCHITECTURES: Mapping[str, type[nn.Module]] = {"deepseg": DeepSeg, "resnet50": ResNet50}
"""The networks a card may name; nothing else is ever built from a file."""

WEIGHTS = "model.safetensors"
CARD = "card.json"
DEFAULT_MODEL = "deepseg-phantom"

_SHIPPED = Path(__file__).parent / "shipped"
_CARRY_CODE = {
    ".pth",
    ".pt",
    ".pkl",
    ".pickle",
    ".ckpt",
    ".h5",
    ".hdf5",
    ".keras",
    ".bin",
    ".joblib",
}
_LARGEST = 4 * 1024**3


@dataclass(frozen=True, eq=False)
class Model:
    """A network ready to be used and explained, and its card.

    Attributes
    ----------
    network
        In evaluation state, on the CPU, in float32; it returns logits.
    card
        What it expects and returns.
    folder
        Where it was loaded from.
    weights_sha256
        Hash of the weight file, for the provenance of every map.
    """

    network: nn.Module
    card: Card
    folder: Path
    weights_sha256: str


def shipped_models() -> tuple[str, ...]:
    """Return the names of the networks that come with the package."""
    return tuple(sorted(card.parent.name for card in _SHIPPED.glob(f"*/{CARD}")))


def load_model(name_or_path: str | os.PathLike[str] = DEFAULT_MODEL) -> Model:
    """Load a shipped network by name, or a checkpoint by the path of its folder.

    The weights must have the hash that the card pins, exactly the network's names and shapes, and
    finite values; float16 is widened to float32. Nothing in the folder is ever executed.

    Raises
    ------
    ModelError
        Naming the file and what is wrong with it.
    """
    folder = _find(name_or_path)
    card = read_card(folder / CARD)
    weights = folder / WEIGHTS
    payload = _read_weights(weights)
    sha256 = hashlib.sha256(payload).hexdigest()
    if sha256 != card.weights_sha256:
        raise ModelError(
            f"{weights}: sha256 is {sha256[:12]}…, the card pins {card.weights_sha256[:12]}…: "
            "the file is damaged or belongs to another card"
        )
    state = _parse(payload, weights)
    with torch.random.fork_rng(devices=[]):  # starting weights are drawn, and then replaced
        network = build_network(card.architecture, card.arguments, source=folder / CARD)
    _fit(network, state, weights)
    network.eval().requires_grad_(requires_grad=False)
    return Model(network=network, card=card, folder=folder, weights_sha256=sha256)


def save_checkpoint(
    folder: str | os.PathLike[str], network: nn.Module, card: Card, *, dtype: str = "float32"
) -> Path:
    """Write ``network`` and ``card`` as a checkpoint folder, whole or not at all.

    With ``dtype="float16"`` kernels and matrices are halved; vectors (norms, biases), which weigh
    little and may span many magnitudes, stay float32. The card's hash and dtype are filled in.

    Returns
    -------
    Path
        The folder. An older checkpoint there is replaced.

    Raises
    ------
    ModelError
        If a weight is not finite, overflows float16, or the network is not the card's.
    OutputError
        If the folder cannot be written, or holds something other than a checkpoint.
    """
    from safetensors.torch import save

    if dtype not in ("float32", "float16"):
        raise ModelError(f"save_checkpoint: dtype is {dtype!r}, expected float32 or float16")
    folder = Path(folder)
    state = {name: _narrow(name, value, dtype) for name, value in network.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        twin = build_network(card.architecture, card.arguments, source="card")
    _fit(twin, state, "the network to save")
    payload: bytes = save(state)
    card = dataclasses.replace(
        card, weights_sha256=hashlib.sha256(payload).hexdigest(), weights_dtype=dtype
    )
    _replace_folder(folder, {WEIGHTS: payload, CARD: card.to_json().encode()})
    return folder


def build_network(
    architecture: str, arguments: Mapping[str, object], *, source: str | Path
) -> nn.Module:
    """Return an untrained network of :data:`ARCHITECTURES`; errors name ``source``."""
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"{source}: unknown architecture {architecture!r}; "
            f"{suggestion(architecture, ARCHITECTURES)}"
        )
    try:
        return ARCHITECTURES[architecture](**arguments)
    except (TypeError, ValueError, RuntimeError, ModelError) as error:
        raise ModelError(
            f"{source}: {architecture} cannot be built from {json.dumps(dict(arguments))} ({error})"
        ) from error


def _find(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the checkpoint folder meant by a shipped name or a path."""
    text = os.fspath(name_or_path)
    shipped = shipped_models()
    if text in shipped:
        return _SHIPPED / text
    path = Path(text)
    if path.suffix.lower() in _CARRY_CODE:
        raise ModelError(
            f"{path}: files of the kind {path.suffix} can carry code and are not read; load it "
            "where you trust it and convert it with neuroxai.models.checkpoint.save_checkpoint"
        )
    if path.is_dir():
        return path
    if path.is_file() and path.name in (WEIGHTS, CARD):
        return path.parent
    if path.is_file():
        raise ModelError(f"{path}: is a file, expected a folder with {WEIGHTS} and {CARD}")
    hint = suggestion(text, shipped) if shipped else "this installation ships no network"
    raise ModelError(
        f"{text}: neither a folder with {WEIGHTS} and {CARD} nor a shipped network; {hint}"
    )


def _read_weights(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise ModelError(
                f"{path}: no such file; a checkpoint folder holds {WEIGHTS} and {CARD}"
            )
        if path.stat().st_size > _LARGEST:
            raise ModelError(
                f"{path}: {path.stat().st_size} bytes, more than a network should have"
            )
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error


def _parse(payload: bytes, path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        state: dict[str, Tensor] = load(payload)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: not a safetensors file ({error})") from error
    return state


def _fit(network: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load ``state`` into ``network`` if it fits exactly and is finite."""
    expected = network.state_dict()
    for name in expected:
        if name not in state:
            raise ModelError(f"{source}: the tensor {name!r} is missing")
    for name, value in state.items():
        if name not in expected:
            raise ModelError(f"{source}: unknown tensor {name!r}; {suggestion(name, expected)}")
        wanted = expected[name]
        if value.shape != wanted.shape:
            raise ModelError(
                f"{source}: {name} has shape {tuple(value.shape)}, expected {tuple(wanted.shape)}"
            )
        allowed = (torch.float32, torch.float16) if wanted.is_floating_point() else (wanted.dtype,)
        if value.dtype not in allowed:
            raise ModelError(f"{source}: {name} is {value.dtype}, expected {allowed[0]}")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ModelError(f"{source}: {name} holds values that are not finite")
    network.load_state_dict({name: value.to(expected[name]) for name, value in state.items()})


def _narrow(name: str, value: Tensor, dtype: str) -> Tensor:
    """Return a tensor as it goes to disk."""
    value = value.detach().cpu().contiguous()
    if not value.is_floating_point():
        return value.clone()
    if not bool(torch.isfinite(value).all()):
        raise ModelError(f"save_checkpoint: {name} holds values that are not finite")
    if dtype == "float16" and value.ndim > 1:
        half = value.half()
        if not bool(torch.isfinite(half).all()):
            raise ModelError(f"save_checkpoint: {name} overflows float16; save as float32")
        return half
    return value.float().clone()


def _replace_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put a folder of ``files`` in place by renaming; an older checkpoint makes way."""
    if folder.exists() and (not folder.is_dir() or {p.name for p in folder.iterdir()} - set(files)):
        raise OutputError(f"{folder}: exists and is no checkpoint; choose another folder")
    stamp = secrets.token_hex(4)
    fresh = folder.with_name(f".{stamp}-{folder.name}")
    old = folder.with_name(f".{stamp}-old-{folder.name}")
    try:
        fresh.mkdir(parents=True)
        for name, payload in files.items():
            with (fresh / name).open("wb") as stream:
                stream.write(payload)
                stream.flush()
                os.fsync(stream.fileno())
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    except OSError as error:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
