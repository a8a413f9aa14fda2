"""Loading of trained nnU-Net v2 models, without nnU-Net itself."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from neuroxai.core.errors import ModelError
from neuroxai.core.probe.ensemble import Ensemble
from neuroxai.core.vocabulary import standard_modality
from neuroxai.models.card import Card
from neuroxai.models.channel_names import regions_of, standard_classes
from neuroxai.models.config_data import read_json
from neuroxai.models.formats import DATASET, PLANS
from neuroxai.models.model import Model
from neuroxai.models.nnunet_networks import unique_names
from neuroxai.models.nnunet_plans import (
    build_network,
    read_configuration,
    read_preprocessing,
)
from neuroxai.models.nnunet_slices import volume_weights
from neuroxai.models.torch_weights import convert_torch
from neuroxai.models.weights import Weights, load_state, read_weights

MIRRORING_OFF = "nnU-Net's test-time mirroring is off"
"""Beginning of the note of a network without mirror images."""
_CHECKPOINTS = ("checkpoint_final", "checkpoint_best")


def read_nnunet(folder: Path, *, trust: bool = False) -> Model:
    """Load the folder of a trained nnU-Net v2 model.

    ``dataset.json`` defines channels and labels, ``plans.json`` the network, the preprocessing and
    the patch size. The logits of all folds ``fold_X`` are averaged. nnU-Net itself is not needed.
    Its checkpoints are pickles: convert each once with
    ``neuroxai convert torch fold_X/checkpoint_final.pth --entry network_weights --trust``, or pass
    ``trust`` to convert them at every load.

    Inference reproduces nnU-Net's: axes z, y, x as stored, cropping to nonzero voxels, z-scores,
    resampling, evenly spaced windows of the patch size that overlap by half, with Gaussian
    weights. A 2D configuration is applied to every slice of the volume. Test-time mirroring is not
    supported, because the map of a mirrored prediction is a mixture of maps.

    Parameters
    ----------
    folder
        For example ``nnUNetTrainer__nnUNetPlans__3d_fullres``.
    trust
        Read pickled checkpoints in a separate process with limits.

    Raises
    ------
    ModelError
        Naming the file and the entry that is invalid or not supported, for example cascades and
        readers or normalizations other than nnU-Net's defaults.

    References
    ----------
    F. Isensee et al., *Nature Methods* 18, 203–211 (2021), doi:10.1038/s41592-020-01008-z.
    """
    dataset, plans = read_json(folder / DATASET), read_json(folder / PLANS)
    configuration = read_configuration(plans, folder)
    modalities = _modalities(dataset, folder / DATASET)
    names, activation = _outputs(dataset, folder / DATASET)
    recipe, windows = read_preprocessing(plans, configuration, modalities)
    checkpoints = _checkpoints(folder)
    members, hashes = [], []
    for path in checkpoints:
        weights = _weights(path, trust=trust)
        member = build_network(configuration, len(modalities), len(names))
        tensors = unique_names(weights.tensors)
        load_state(member, volume_weights(tensors) if configuration.slices else tensors, path)
        members.append(member.eval().requires_grad_(requires_grad=False))
        hashes.append(weights.sha256)
    notes = [f"{MIRRORING_OFF}: its own prediction is a mean over mirrored inputs"]
    if checkpoints[0].stem != _CHECKPOINTS[0]:
        notes.append(f"{checkpoints[0].stem} was loaded, because {_CHECKPOINTS[0]} does not exist")
    card = Card.from_dict(
        {
            "name": f"{dataset.get('name') or plans.get('dataset_name') or folder.resolve().name}",
            "architecture": configuration.network,
            "arguments": dict(configuration.arguments),
            "task": "segmentation",
            "modalities": modalities,
            "classes": names,
            "activation": activation,
            "regions": regions_of(names, activation),
            "preprocessing": recipe,
            "postprocessing": {"label_numbers": _label_numbers(dataset, activation, folder)},
            "training": {
                "configuration": configuration.name,
                "folds": [path.parent.name for path in checkpoints],
            },
            "metrics": {},
            "weights_sha256": hashes[0],
            "license": str(dataset.get("licence") or dataset.get("license") or "unknown"),
        },
        source=folder / DATASET,
    )
    network = members[0] if len(members) == 1 else Ensemble(members)
    combined = hashes[0] if len(hashes) == 1 else sha256("".join(hashes).encode()).hexdigest()
    return Model(
        network, card, folder, combined, kind=f"a trained nnU-Net v2, {_folds(len(members))}",
        windows=windows, notes=tuple(notes),
    )  # fmt: skip


def _folds(count: int) -> str:
    return "one fold" if count == 1 else f"the mean of {count} folds"


def _modalities(dataset: Mapping[str, Any], source: Path) -> tuple[str, ...]:
    channels = dataset.get("channel_names") or dataset.get("modality")
    if not isinstance(channels, Mapping) or sorted(channels) != sorted(
        map(str, range(len(channels)))
    ):
        raise ModelError(
            f"{source}: channel_names is {channels!r}, expected a name for each of 0, 1, …"
        )
    names = tuple(standard_modality(str(channels[str(i)])) for i in range(len(channels)))
    if len(set(names)) < len(names):
        raise ModelError(f"{source}: channel_names has duplicate channels: {dict(channels)}")
    return names


def _outputs(dataset: Mapping[str, Any], source: Path) -> tuple[tuple[str, ...], str]:
    """Return the names of the output channels, and their activation."""
    labels = dataset.get("labels")
    if not isinstance(labels, Mapping) or labels.get("background") != 0:
        raise ModelError(f"{source}: labels is {labels!r}, expected a mapping with background 0")
    known = {str(name): value for name, value in labels.items() if name != "ignore"}
    if any(isinstance(value, list) and len(value) > 1 for value in known.values()):
        # Overlapping regions, in the order of the file.
        del known["background"]
        return standard_classes(known), "sigmoid"
    numbers = {
        name: value[0] if isinstance(value, list) else value for name, value in known.items()
    }
    if sorted(numbers.values(), key=str) != sorted(range(len(numbers)), key=str):
        raise ModelError(f"{source}: labels are {dict(labels)}, expected the numbers 0, 1, 2, …")
    ordered = sorted(numbers, key=numbers.__getitem__)
    return standard_classes(ordered), "softmax"


def _label_numbers(dataset: Mapping[str, Any], activation: str, folder: Path) -> list[int]:
    """Return the number of each region in the label file, in the order in which they are drawn."""
    order = dataset.get("regions_class_order")
    if activation != "sigmoid" or order is None:
        return []
    regions = [name for name in dataset["labels"] if name not in ("background", "ignore")]
    if not isinstance(order, list) or sorted(order, key=str) != sorted(
        range(1, len(regions) + 1), key=str
    ):
        raise ModelError(
            f"{folder / DATASET}: regions_class_order is {order!r}, expected the numbers 1 to "
            f"{len(regions)}, one for each of the regions {', '.join(map(str, regions))}"
        )
    return order


def _checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoint of every fold, or of ``fold_all``, without its suffix."""
    folds = sorted(each for each in folder.glob("fold_*") if each.name[5:].isdigit())
    for name in _CHECKPOINTS:
        for group in (folds, [folder / "fold_all"]):
            found = [
                fold / name
                for fold in group
                if any((fold / f"{name}{suffix}").is_file() for suffix in (".safetensors", ".pth"))
            ]
            if found:
                return found
    raise ModelError(
        f"{folder}: no fold_X with {_CHECKPOINTS[0]}.safetensors or {_CHECKPOINTS[0]}.pth"
    )


def _weights(path: Path, *, trust: bool) -> Weights:
    converted = path.with_suffix(".safetensors")
    if converted.is_file():
        return read_weights(converted)
    pickled = path.with_suffix(".pth")
    if not trust:
        raise ModelError(
            f"{pickled}: a pickled file can contain code and is not read; if you trust it, "
            f"convert it:  neuroxai convert torch {pickled} --entry network_weights --trust"
        )
    with tempfile.TemporaryDirectory(prefix="neuroxai-") as temporary:
        target = Path(temporary, "weights.safetensors")
        return read_weights(convert_torch(pickled, target, trust=True, entry="network_weights"))
