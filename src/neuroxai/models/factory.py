"""A network of the user's own: ``package.module:factory``, its weights, and what it expects."""

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
from neuroxai.models.weights import fit, read_weights

StrPath = str | os.PathLike[str]


def read_factory(spec: str, weights: StrPath, card: StrPath | None) -> Model:
    """Build a network by calling a function or class, and load its weights.

    The module is looked for where Python looks, and in the current folder. It is the user who
    names it: what it does when it is imported is up to them.

    Parameters
    ----------
    spec
        ``package.module:factory``; called without arguments it returns an ``nn.Module``.
    weights
        A safetensors file with exactly the network's names and shapes.
    card
        A JSON file that says what the network expects and returns: ``task``, ``modalities``,
        ``classes``, ``activation``, ``preprocessing``, and what else a card holds; ``output`` says
        which of several outputs counts. By default
        ``card.json`` beside the weights.

    Raises
    ------
    ModelError
        If something is missing or does not fit.
    """
    source = Path(weights)
    description = Path(card) if card is not None else source.with_name("card.json")
    found, output = read_description(description, architecture=spec)
    network = _call(spec)
    loaded = read_weights(source)
    fit(network, loaded.tensors, source)
    network.eval().requires_grad_(requires_grad=False)
    return Model(
        network, found, source.parent, loaded.sha256, kind="a module of your own", output_key=output
    )


def _call(spec: str) -> nn.Module:
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
            "from here and take no arguments"
        ) from error
    finally:
        sys.path.remove(here)
    if not isinstance(network, nn.Module):
        raise ModelError(f"{spec}: returned a {type(network).__name__}, expected an nn.Module")
    return network
