"""MONAI bundles: a folder of configurations and weights, read as data."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuroxai.core.errors import MissingExtraError, ModelError, suggestion
from neuroxai.models.card import USE, Card
from neuroxai.models.channel_names import MODALITIES, OUTPUTS, in_our_words, regions_of
from neuroxai.models.config_data import ConfigData, read_json, read_yaml
from neuroxai.models.formats import METADATA, refuse_code
from neuroxai.models.model import Model
from neuroxai.models.monai_inferer import read_inferer
from neuroxai.models.monai_transforms import read_transforms
from neuroxai.models.weights import fit, read_weights

INFERENCE = Path("configs", "inference.json")
SAFETENSORS = Path("models", "model.safetensors")


def read_bundle(folder: Path, *, trust: bool = False) -> Model:
    """Load a bundle: network, channels, preprocessing and outputs from its configurations.

    ``configs/metadata.json`` says what the channels are, ``configs/inference.json`` (or ``.yaml``)
    how the network is built, what comes before it and after it; the weights are
    ``models/model.safetensors``. A network is only ever built from a class of
    ``monai.networks.nets``.

    Parameters
    ----------
    folder
        The bundle's root.
    trust
        Evaluate expressions (``$…``) in what is needed of the configuration. Without it they are
        refused by name.

    Raises
    ------
    ModelError
        Naming the file and what cannot be read or translated.
    MissingExtraError
        If MONAI is not installed.
    """
    metadata = read_json(folder / METADATA)
    config = _configuration(folder, trust=trust)
    modalities, names, divisor = _channels(metadata, folder / METADATA)
    network, description = _network(config)
    recipe = read_transforms(config.get("preprocessing") or [], config.source, len(modalities))
    windows = read_inferer(config)
    if windows is not None:
        # What the metadata says of the network's input is for the windows to keep.
        windows = dataclasses.replace(windows, divisor=recipe.settings.get("divisor", 1))
    recipe.settings.setdefault("divisor", divisor)
    notes = list(recipe.notes)
    if recipe.settings["orientation"] is None:
        notes.append(
            "it was trained on scans as they were stored, and is given yours as they are stored: "
            "left and right must lie as in its training data"
        )
    source = _weights_file(folder)
    weights = read_weights(source)
    fit(network, weights.tensors, source)
    network.eval().requires_grad_(requires_grad=False)
    activation = _activation(config, names)
    card = Card.from_dict(
        {
            "name": str(metadata.get("name") or folder.resolve().name),
            "architecture": f"monai.networks.nets.{description['_target_']}",
            "arguments": {key: value for key, value in description.items() if key != "_target_"},
            "task": "segmentation",
            "modalities": modalities,
            "classes": names,
            "activation": activation,
            "regions": regions_of(names, activation),
            "preprocessing": {"modalities": list(modalities), **recipe.settings},
            "training": {"bundle_version": str(metadata.get("version", "unknown"))},
            "metrics": _table(metadata.get("eval_metrics")),
            "weights_sha256": weights.sha256,
            "license": str(metadata.get("license") or metadata.get("copyright") or "unknown"),
            "use": f"{metadata.get('intended_use') or USE}",
        },
        source=folder / METADATA,
    )
    return Model(
        network, card, folder, weights.sha256, kind="a MONAI bundle", windows=windows,
        notes=tuple(notes),
    )  # fmt: skip


def _configuration(folder: Path, *, trust: bool) -> ConfigData:
    for ending, read in ((".json", read_json), (".yaml", read_yaml), (".yml", read_yaml)):
        path = (folder / INFERENCE).with_suffix(ending)
        if path.is_file():
            return ConfigData(read(path), path, trust=trust)
    raise ModelError(f"{folder / INFERENCE}: no such file, nor one that ends in .yaml")


def _table(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _channels(
    metadata: Mapping[str, Any], source: Path
) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """Return the input's and the output's channels by name, and what must divide the input."""
    layout = _table(metadata.get("network_data_format"))
    image = _table(_table(layout.get("inputs")).get("image"))
    pred = _table(_table(layout.get("outputs")).get("pred"))
    inputs = _names(image, "inputs.image", MODALITIES, source)
    outputs = _names(pred, "outputs.pred", OUTPUTS, source)
    divisors = [1]
    for entry in image.get("spatial_shape") or []:
        found = re.fullmatch(r"\s*(\d+)\s*\*\s*n\s*", str(entry))
        divisors.append(int(found[1]) if found else 1)
    return inputs, outputs, max(divisors)


def _names(
    channel: Mapping[str, Any], what: str, known: Mapping[str, str], source: Path
) -> tuple[str, ...]:
    defined = _table(channel.get("channel_def"))
    try:
        ordered = [str(defined[key]) for key in sorted(defined, key=int)]
        complete = [int(key) for key in sorted(defined, key=int)] == list(range(len(defined)))
    except ValueError:
        ordered, complete = [], False
    if not ordered or not complete or channel.get("num_channels", len(ordered)) != len(ordered):
        raise ModelError(
            f"{source}: network_data_format.{what}.channel_def is {dict(defined)!r}, expected a "
            "name for every channel from 0 on; add it, or the channels cannot be matched by name"
        )
    names = tuple(in_our_words(name, known) for name in ordered)
    if len(set(names)) < len(names):
        raise ModelError(f"{source}: network_data_format.{what} names one channel twice: {ordered}")
    return names


def _network(config: ConfigData) -> tuple[nn.Module, dict[str, Any]]:
    try:
        from monai.networks import nets
    except ImportError as error:
        raise MissingExtraError("Reading a MONAI bundle", "monai", "monai") from error
    key = "network_def" if "network_def" in config else "network"
    found = config.get(key)
    if not isinstance(found, dict) or not isinstance(found.get("_target_"), str):
        raise ModelError(f"{config.source}: {key} is {found!r}, expected a table with _target_")
    found = {name: value for name, value in found.items() if name not in ("_desc_", "_disabled_")}
    target = found["_target_"]
    name = target.removeprefix("monai.networks.nets.").rsplit(".", 1)[-1]
    built = getattr(nets, name, None)
    inside = name == target or target.startswith("monai.networks.nets.")
    if not (inside and inspect.isclass(built) and issubclass(built, nn.Module)):
        known = [each for each, kind in vars(nets).items() if inspect.isclass(kind)]
        raise ModelError(
            f"{config.source}: {key} is built from {target!r}, which is no network of "
            f"monai.networks.nets ({suggestion(name, known)}); give your own code as "
            "--model package.module:factory --weights model.safetensors"
        )
    arguments = {key: value for key, value in found.items() if key != "_target_"}
    try:
        with torch.random.fork_rng(devices=[]):
            network = built(**arguments)
    # MedNeXt and others of MONAI assert what they are given.
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ModelError(
            f"{config.source}: {name} cannot be built from {arguments} ({error})"
        ) from error
    return network, {"_target_": name, **arguments}


def _weights_file(folder: Path) -> Path:
    path = folder / SAFETENSORS
    if not path.is_file():
        for other in ("model.pt", "model.pth", "model.ts"):
            refuse = folder / "models" / other
            if refuse.is_file():
                refuse_code(refuse)
    return path


def _activation(config: ConfigData, names: tuple[str, ...]) -> str:
    """Return what turns the output into probabilities, as the postprocessing says."""
    chain = config.raw("postprocessing")
    tables = chain.get("transforms", []) if isinstance(chain, Mapping) else chain or []
    for table in tables if isinstance(tables, list) else []:
        if not isinstance(table, Mapping):
            continue
        if table.get("sigmoid") is True:
            return "sigmoid"
        if table.get("softmax") is True or table.get("argmax") is True:
            return "softmax"
    if "background" in names:
        return "softmax"
    raise ModelError(
        f"{config.source}: postprocessing names neither sigmoid nor softmax, so what the outputs "
        f"{', '.join(names)} mean is unknown; add an Activationsd"
    )
