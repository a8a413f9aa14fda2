"""Loading of MONAI bundles: folders of configuration files and weights."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuroxai.core.errors import MissingExtraError, ModelError, suggestion
from neuroxai.core.vocabulary import standard_modality
from neuroxai.models.card import USE, Card
from neuroxai.models.channel_names import regions_of, standard_classes
from neuroxai.models.config_data import ConfigData, read_json, read_yaml
from neuroxai.models.formats import METADATA, refuse_code
from neuroxai.models.model import Model
from neuroxai.models.monai_inferer import read_inferer
from neuroxai.models.monai_steps import THRESHOLD
from neuroxai.models.monai_transforms import read_transforms
from neuroxai.models.weights import load_state, read_weights

INFERENCE = Path("configs", "inference.json")
SAFETENSORS = Path("models", "model.safetensors")


def read_bundle(folder: Path, *, trust: bool = False) -> Model:
    """Load a MONAI bundle.

    ``configs/metadata.json`` defines the channels, ``configs/inference.json`` (or ``.yaml``) the
    network, its preprocessing, inferer and postprocessing, and ``models/model.safetensors`` the
    weights. Networks are built only from classes of ``monai.networks.nets``.

    Parameters
    ----------
    folder
        Root folder of the bundle.
    trust
        Evaluate the expressions (``$…``) in the required parts of the configuration. Otherwise
        they raise an error.

    Raises
    ------
    ModelError
        Naming the file and the entry that is invalid or not supported.
    MissingExtraError
        If MONAI is not installed.
    """
    metadata = read_json(folder / METADATA)
    config = _configuration(folder, trust=trust)
    modalities, names, divisor = _channels(metadata, folder / METADATA)
    network, description = _network(config)
    chain = config.get("preprocessing", keep=THRESHOLD) or []
    version = _version(metadata.get("monai_version"))
    recipe = read_transforms(chain, config.source, len(modalities), version=version)
    windows = read_inferer(config)
    # With windows, the size constraint in the metadata concerns only a pass over the whole image.
    recipe.settings["divisor"] = divisor
    notes = list(recipe.notes)
    if not recipe.reorients:
        notes.append(
            "the bundle does not reorient scans, so they are used as stored; their orientation "
            "must be that of its training data"
        )
    source = _weights_file(folder)
    weights = read_weights(source)
    notes += load_state(network, weights.tensors, source)
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
            "metrics": _mapping(metadata.get("eval_metrics")),
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
    for suffix, read in ((".json", read_json), (".yaml", read_yaml), (".yml", read_yaml)):
        path = (folder / INFERENCE).with_suffix(suffix)
        if path.is_file():
            return ConfigData(read(path), path, trust=trust)
    raise ModelError(f"{folder / INFERENCE}: no such file, and no inference.yaml")


def _version(text: Any) -> tuple[int, ...]:
    """Return a release as numbers, empty if it is not one."""
    return tuple(int(part) for part in re.findall(r"\d+", str(text or ""))[:3])


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping as it is, anything else as an empty one."""
    return value if isinstance(value, Mapping) else {}


def _channels(
    metadata: Mapping[str, Any], source: Path
) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """Return the names of input and output channels, and the divisor of the input's size."""
    layout = _mapping(metadata.get("network_data_format"))
    image = _mapping(_mapping(layout.get("inputs")).get("image"))
    pred = _mapping(_mapping(layout.get("outputs")).get("pred"))
    inputs = _names(image, "inputs.image", source, lambda names: map(standard_modality, names))
    outputs = _names(pred, "outputs.pred", source, standard_classes)
    divisors = [1]
    for entry in image.get("spatial_shape") or []:
        found = re.fullmatch(r"\s*(\d+)\s*\*\s*n\s*", str(entry))
        divisors.append(int(found[1]) if found else 1)
    return inputs, outputs, max(divisors)


def _names(
    channel: Mapping[str, Any],
    key: str,
    source: Path,
    standard: Callable[[list[str]], Iterable[str]],
) -> tuple[str, ...]:
    defined = _mapping(channel.get("channel_def"))
    try:
        ordered = [str(defined[key]) for key in sorted(defined, key=int)]
        complete = [int(key) for key in sorted(defined, key=int)] == list(range(len(defined)))
    except ValueError:
        ordered, complete = [], False
    if not ordered or not complete or channel.get("num_channels", len(ordered)) != len(ordered):
        raise ModelError(
            f"{source}: network_data_format.{key}.channel_def is {dict(defined)!r}, expected a "
            "name for every channel, numbered from 0; add the names"
        )
    names = tuple(standard(ordered))
    if len(set(names)) < len(names):
        raise ModelError(f"{source}: network_data_format.{key} has duplicate channels: {ordered}")
    return names


def _network(config: ConfigData) -> tuple[nn.Module, dict[str, Any]]:
    try:
        from monai.networks import nets
    except ImportError as error:
        raise MissingExtraError("Reading a MONAI bundle", "monai", "monai") from error
    key = "network_def" if "network_def" in config else "network"
    found = config.get(key)
    if not isinstance(found, dict) or not isinstance(found.get("_target_"), str):
        raise ModelError(
            f"{config.source}: {key} is {found!r}, expected a mapping with the key _target_"
        )
    found = {name: value for name, value in found.items() if name not in ("_desc_", "_disabled_")}
    target = found["_target_"]
    name = target.removeprefix("monai.networks.nets.").rsplit(".", 1)[-1]
    network_class = getattr(nets, name, None)
    in_nets = name == target or target.startswith("monai.networks.nets.")
    if not (in_nets and inspect.isclass(network_class) and issubclass(network_class, nn.Module)):
        known = [each for each, kind in vars(nets).items() if inspect.isclass(kind)]
        raise ModelError(
            f"{config.source}: {key} is {target!r}, expected a network of "
            f"monai.networks.nets ({suggestion(name, known)}); load your own code with "
            "--model package.module:factory --weights model.safetensors"
        )
    arguments = {key: value for key, value in found.items() if key != "_target_"}
    try:
        with torch.random.fork_rng(devices=[]):
            network = network_class(**arguments)
    # Some networks of MONAI, for example MedNeXt, check their arguments with assertions.
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ModelError(
            f"{config.source}: {name} cannot be built with {arguments} ({error})"
        ) from error
    return network, {"_target_": name, **arguments}


def _weights_file(folder: Path) -> Path:
    path = folder / SAFETENSORS
    if not path.is_file():
        for other in ("model.pt", "model.pth", "model.ts"):
            pickled = folder / "models" / other
            if pickled.is_file():
                refuse_code(pickled)
    return path


def _activation(config: ConfigData, names: tuple[str, ...]) -> str:
    """Return the activation that the postprocessing applies to the logits."""
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
        f"{config.source}: the postprocessing applies neither sigmoid nor softmax to the outputs "
        f"{', '.join(names)}; add an Activationsd transform"
    )
