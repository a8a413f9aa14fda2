"""Checkpoints: a folder of ``model.safetensors`` and ``card.json``, which carries no code."""

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
from neuroxai.models.weights import fit, read_weights

ARCHITECTURES: Mapping[str, type[nn.Module]] = {
    "deepseg": DeepSeg,
    "resnet50": ResNet50,
    "resnet50v2": ResNet50V2,
}
"""The networks a card may name; nothing else is ever built from a file."""


def read_checkpoint(folder: Path) -> Model:
    """Load a checkpoint folder.

    The weights must have the hash that the card pins, exactly the network's names and shapes, and
    finite values; float16 is widened to float32. Nothing in the folder is ever executed.

    Raises
    ------
    ModelError
        Naming the file and what is wrong with it.
    """
    card = read_card(folder / CARD)
    source = folder / WEIGHTS
    weights = read_weights(source)
    if weights.sha256 != card.weights_sha256:
        raise ModelError(
            f"{source}: sha256 is {weights.sha256[:12]}…, the card pins "
            f"{card.weights_sha256[:12]}…: the file is damaged or belongs to another card"
        )
    with torch.random.fork_rng(devices=[]):  # starting weights are drawn, and then replaced
        network = build_network(card.architecture, card.arguments, source=folder / CARD)
    fit(network, weights.tensors, source)
    network.eval().requires_grad_(requires_grad=False)
    return Model(network=network, card=card, folder=folder, weights_sha256=weights.sha256)


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
    fit(twin, state, "the network to save")
    payload: bytes = save(state)
    card = card.replace(weights_sha256=hashlib.sha256(payload).hexdigest(), weights_dtype=dtype)
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
