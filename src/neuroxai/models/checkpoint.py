"""Checkpoints: folders with ``model.safetensors`` and ``card.json``, which contain no code."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from neuroxai.core.errors import ModelError, OutputError, suggestion
from neuroxai.models.card import Card, read_card
from neuroxai.models.deepseg import DeepSeg
from neuroxai.models.formats import CARD, WEIGHTS
from neuroxai.models.model import Model
from neuroxai.models.resnet import ResNet50
from neuroxai.models.resnet50v2 import ResNet50V2
from neuroxai.models.weights import load_state, read_weights

ARCHITECTURES: Mapping[str, type[nn.Module]] = {
    "deepseg": DeepSeg,
    "resnet50": ResNet50,
    "resnet50v2": ResNet50V2,
}
"""Architectures that a card can name; no other class is built from a file."""


def read_checkpoint(folder: Path) -> Model:
    """Load a checkpoint folder.

    The weights must match the card's SHA-256 and the names and shapes of the network, and be
    finite; float16 is converted to float32. No content of the folder is executed.

    Raises
    ------
    ModelError
        Naming the file and the problem.
    """
    card = read_card(folder / CARD)
    source = folder / WEIGHTS
    weights = read_weights(source)
    if weights.sha256 != card.weights_sha256:
        raise ModelError(
            f"{source}: sha256 is {weights.sha256[:12]}…, expected "
            f"{card.weights_sha256[:12]}… as in {CARD}; the file is damaged or has another card"
        )
    # Building draws random initial weights; the global generator stays as it was.
    with torch.random.fork_rng(devices=[]):
        network = build_network(card.architecture, card.arguments, source=folder / CARD)
    notes = load_state(network, weights.tensors, source)
    network.eval().requires_grad_(requires_grad=False)
    return Model(network, card, folder, weights.sha256, notes=tuple(notes))


def save_checkpoint(
    folder: str | os.PathLike[str], network: nn.Module, card: Card, *, dtype: str = "float32"
) -> Path:
    """Write a checkpoint folder atomically.

    With ``dtype="float16"``, kernels and matrices are stored in half precision. Vectors (norms and
    biases) stay float32: they are small, and their values can span many orders of magnitude. The
    card's hash and dtype are set.

    Returns
    -------
    Path
        The folder. An existing checkpoint is replaced.

    Raises
    ------
    ModelError
        If a weight is not finite or overflows float16, or the card describes another network.
    OutputError
        If the folder cannot be written, or contains anything but a checkpoint.
    """
    from safetensors.torch import save

    if dtype not in ("float32", "float16"):
        raise ModelError(f"save_checkpoint: dtype is {dtype!r}, expected float32 or float16")
    folder = Path(folder)
    state = {name: _to_dtype(name, value, dtype) for name, value in network.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        described = build_network(card.architecture, card.arguments, source="card")
    load_state(described, state, "the network to save")
    payload: bytes = save(state)
    card = card.replace(weights_sha256=hashlib.sha256(payload).hexdigest(), weights_dtype=dtype)
    _replace_folder(folder, {WEIGHTS: payload, CARD: card.to_json().encode()})
    return folder


def build_network(
    architecture: str, arguments: Mapping[str, object], *, source: str | Path
) -> nn.Module:
    """Build an untrained network of :data:`ARCHITECTURES`; errors name ``source``."""
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"{source}: unknown architecture {architecture!r}; "
            f"{suggestion(architecture, ARCHITECTURES)}"
        )
    try:
        return ARCHITECTURES[architecture](**arguments)
    except (TypeError, ValueError, RuntimeError, ModelError) as error:
        raise ModelError(
            f"{source}: {architecture} cannot be built with {json.dumps(dict(arguments))} ({error})"
        ) from error


def _to_dtype(name: str, value: Tensor, dtype: str) -> Tensor:
    """Convert a tensor to the data type that it is stored in."""
    value = value.detach().cpu().contiguous()
    if not value.is_floating_point():
        return value.clone()
    if not bool(torch.isfinite(value).all()):
        raise ModelError(f"save_checkpoint: {name} has values that are not finite")
    if dtype == "float16" and value.ndim > 1:
        half = value.half()
        if not bool(torch.isfinite(half).all()):
            raise ModelError(f"save_checkpoint: {name} overflows float16; save as float32")
        return half
    return value.float().clone()


def _replace_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write ``files`` to a new folder and rename it to ``folder``; replaces a checkpoint."""
    if folder.exists() and (not folder.is_dir() or {p.name for p in folder.iterdir()} - set(files)):
        raise OutputError(f"{folder}: exists and is not a checkpoint; choose another folder")
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
