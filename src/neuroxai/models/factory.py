"""Networks built by a user's own function: ``package.module:factory``."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import torch
from torch import nn

from neuroxai.core.errors import ModelError
from neuroxai.models.card import read_description
from neuroxai.models.model import Model
from neuroxai.models.weights import load_state, read_weights

StrPath = str | os.PathLike[str]


def read_factory(spec: str, weights: StrPath, card: StrPath | None) -> Model:
    """Build a network by calling a function or class, and load its weights.

    The module is searched for on Python's path and in the current folder. Importing it runs the
    user's code.

    Parameters
    ----------
    spec
        ``package.module:factory``, a callable without arguments that returns an ``nn.Module``.
    weights
        A safetensors file with exactly the names and shapes of the network's state dict.
    card
        A JSON file with the keys ``task``, ``modalities``, ``classes``, ``activation``,
        ``preprocessing``, and optionally any other key of a card; ``output`` is the index or name
        of the output to use, if the network has several. By default ``card.json`` in the folder of
        the weights.

    Raises
    ------
    ModelError
        If a file is missing, the network cannot be built, or the weights do not match it.
    """
    source = Path(weights)
    description = Path(card) if card is not None else source.with_name("card.json")
    found, output = read_description(description, architecture=spec)
    network = build_network(spec)
    loaded = read_weights(source)
    notes = load_state(network, loaded.tensors, source)
    network.eval().requires_grad_(requires_grad=False)
    return Model(
        network, found, source.parent, loaded.sha256, kind="your own module", output_key=output,
        notes=tuple(notes),
    )  # fmt: skip


def build_network(spec: str) -> nn.Module:
    """Build the network of ``package.module:factory``, with the weights of its own code.

    Raises
    ------
    ModelError
        If it cannot be imported or called, or does not return an ``nn.Module``.
    """
    module_name, _, name = spec.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        with torch.random.fork_rng(devices=[]):
            factory = getattr(importlib.import_module(module_name), name)
            network = factory()
    except Exception as error:
        raise ModelError(
            f"{spec}: cannot be built ({type(error).__name__}: {error}); it must be importable "
            "from the current folder and take no arguments"
        ) from error
    finally:
        sys.path.remove(here)
    if not isinstance(network, nn.Module):
        raise ModelError(f"{spec}: returned a {type(network).__name__}, expected an nn.Module")
    return network
