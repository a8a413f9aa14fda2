"""Draft of a card: what a network tells about itself, and placeholders for the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from torch import Tensor, nn

from neuroxai.core.errors import ModelError, OutputError
from neuroxai.data.intensity import Intensity
from neuroxai.files.atomic import write_json
from neuroxai.models.exported import read_program
from neuroxai.models.factory import build_network
from neuroxai.models.formats import CARD, WEIGHTS, Format, locate_model
from neuroxai.models.loading import load_model
from neuroxai.models.measured import Measured, measure
from neuroxai.models.placeholders import open_keys, placeholder
from neuroxai.models.weights import load_state, read_weights

_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class CardDraft:
    """A card that is complete but for its placeholders.

    Attributes
    ----------
    table
        Content of the card.
    told
        What the network told, one sentence per fact.
    folder
        Folder where the card is looked for.
    """

    table: Mapping[str, Any]
    told: tuple[str, ...]
    folder: Path

    @property
    def missing(self) -> dict[str, str]:
        """Keys to fill in, and what each expects."""
        return {key: _expected(self.table, key) for key in open_keys(self.table)}


def draft_card(
    model: str | Path,
    *,
    weights: str | Path | None = None,
    trust: bool = False,
    shape: tuple[int, ...] | None = None,
) -> CardDraft:
    """Describe a network as far as its answers to random images tell.

    Parameters
    ----------
    model
        As for :func:`~neuroxai.models.loading.load_model`; a factory needs no weights here. Also a
        safetensors file, whose network is unknown.
    weights
        Safetensors file of a factory.
    trust
        As for :func:`~neuroxai.models.loading.load_model`.
    shape
        Channels and sizes ``(C, *S)`` of an image that the network takes; see
        :func:`~neuroxai.models.measured.measure`.

    Raises
    ------
    ModelError
        If the network cannot be read or run.

    Examples
    --------
    >>> draft_card("deepseg-phantom").missing
    {}
    """
    path = Path(model)
    if weights is None and ((path.suffix == _SUFFIX and path.is_file()) or _has_only_weights(path)):
        return _of_weights(path if path.is_file() else path / WEIGHTS)
    if weights is None and _is_factory(str(model)):
        return _of_network(build_network(str(model)), Path(), shape)
    location = locate_model(model, weights=weights)
    if location.format is Format.FACTORY:
        network = build_network(str(model))
        load_state(network, read_weights(location.path).tensors, location.path)
        return _of_network(network.eval(), location.path.parent, shape)
    if location.format is Format.EXPORTED:
        program = read_program(location.path, trust=trust)
        exported = None if program.input_shape is None else program.input_shape[1:]
        return _of_network(program.network, location.path.parent, shape or exported)
    loaded = load_model(model, trust=trust)
    told = [f"The network is {loaded.kind} and has its own description: nothing is missing."]
    if loaded.windows is not None:
        told.append(
            "It runs in sliding windows of "
            f"{'×'.join(map(str, loaded.windows.size))} voxels, which a card does not contain."
        )
    return CardDraft(loaded.card.to_dict(), tuple(told), Path())


def write_draft(draft: CardDraft, path: Path) -> Path:
    """Write a draft as JSON; existing files are kept.

    Raises
    ------
    OutputError
        If the file exists or cannot be written.
    """
    if path.exists() or path.is_symlink():
        raise OutputError(f"{path}: exists and is not overwritten; choose another file with --out")
    return write_json(path, draft.table)


def _is_factory(text: str) -> bool:
    try:
        locate_model(text, weights="any")
    except ModelError:
        return False
    return True


def _has_only_weights(path: Path) -> bool:
    return (path / WEIGHTS).is_file() and not (path / CARD).exists()


def _of_weights(path: Path) -> CardDraft:
    """Describe a file of weights, which tells the number of axes but not the order of layers."""
    tensors = read_weights(path).tensors
    axes = {value.dim() - 2 for value in tensors.values() if value.dim() in (4, 5)}
    dimensions = axes.pop() if len(axes) == 1 else None
    told = [f"The file holds {_count(tensors.values())} numbers in {len(tensors)} tensors."]
    if dimensions:
        told.append(f"Its convolutions are {dimensions}D.")
    told.append(
        "Weights do not tell how the network uses them. Name its code for more: neuroxai models "
        f"card package.module:factory --weights {path} --init"
    )
    table = {
        "task": placeholder("segmentation or classification"),
        "modalities": placeholder('names of the input channels in order, ["T1", "FLAIR"]'),
        "classes": placeholder('names of the output channels in order, ["background", "ET"]'),
        "regions": _regions(),
        "activation": _activation(None, 0),
        "preprocessing": _preprocessing(None, dimensions or 3),
    }
    return CardDraft(table, tuple(told), path.parent)


def _of_network(
    network: nn.Module, folder: Path, shape: tuple[int | None, ...] | None
) -> CardDraft:
    network.eval().requires_grad_(requires_grad=False)
    found = measure(network, shape)
    classes = 0 if found.output_shape is None else found.output_shape[1]
    table: dict[str, Any] = {
        "task": found.task or placeholder("segmentation or classification"),
        "modalities": [
            placeholder(f"name of input channel {number}, for example T1, T1ce, T2 or FLAIR")
            for number in range(1, found.input_shape[1] + 1)
        ],
        "classes": [_class_name(number, classes, found.task) for number in range(1, classes + 1)]
        or placeholder("names of the output channels in order"),
    }
    if found.task != "classification":
        table["regions"] = _regions()
    table["activation"] = _activation(found, classes)
    if found.output_key is not None:
        table["output"] = found.output_key
    elif found.outputs:
        table["output"] = placeholder(f"one of the outputs {_shapes(found)}")
    table["preprocessing"] = _preprocessing(found, found.dimensions)
    return CardDraft(table, _told(network, found), folder)


def _told(network: nn.Module, found: Measured) -> tuple[str, ...]:
    channels, sizes = found.input_shape[1], found.input_shape[2:]
    told = [
        f"{type(network).__name__} has {_count(network.parameters())} parameters.",
        f"It takes {found.dimensions}D images of {channels} channel{'s' * (channels > 1)}, "
        + (f"of {_times(sizes)} voxels only." if found.fixed else
           "of any size." if found.divisor == 1 else
           f"with sizes that are multiples of {found.divisor}."),
    ]  # fmt: skip
    if found.output_shape is None or (found.outputs and found.output_key is None):
        return (*told, f"It has several outputs: {_shapes(found)}.")
    key = "" if found.output_key is None else f" (output {found.output_key!r})"
    told.append(
        f"{_times(found.input_shape)} → {_times(found.output_shape)}{key}: {found.task}, "
        f"{found.output_shape[1]} channel{'s' * (found.output_shape[1] > 1)}."
    )
    if found.task == "segmentation" and found.output_shape[2:] != sizes:
        told.append(
            "Its output is smaller than the image, so it cannot be explained: pad its convolutions "
            "or resize its output to the image."
        )
    if found.fixed and found.dimensions == 3 and len(set(sizes)) > 1:
        told.append(
            "A scan that is shorter along an axis is padded to a multiple of "
            f"{found.divisor} only, which this network does not take."
        )
    return tuple(told)


def _class_name(number: int, classes: int, task: str | None) -> str:
    if classes == 1:
        return placeholder("name of what the output stands for, for example tumor")
    example = "background" if number == 1 and task == "segmentation" else "ET"
    example = example if task == "segmentation" else "high grade"
    return placeholder(f"name of output channel {number}, for example {example}")


def _regions() -> str:
    return placeholder(
        'tumor regions and their classes, {"WT": ["NCR", "ED", "ET"]}; delete this line if they '
        "follow from class names such as NCR, ED and ET, or if there are none"
    )


def _activation(found: Measured | None, classes: int) -> str:
    own = None if found is None else found.activation
    if own == "log_softmax":
        return "softmax"
    if own is not None:
        return placeholder(
            f"{own}, once it is removed from the end of the network: maps explain logits"
        )
    if classes == 1:
        return "sigmoid"
    return placeholder("softmax if the classes exclude each other, or sigmoid if they overlap")


def _preprocessing(found: Measured | None, dimensions: int) -> dict[str, Any]:
    fixed = found is not None and found.fixed
    recipe: dict[str, Any] = {
        "intensity": placeholder(f"normalization in training, {_or(get_args(Intensity))}")
    }
    if dimensions == 2:
        recipe["plane"] = "axial"
        recipe["size"] = (
            list(found.input_shape[2:]) if found is not None and fixed else
            placeholder("size of the slices in training, for example [224, 224]")
        )  # fmt: skip
        recipe["spacing_mm"] = placeholder(
            "smallest and largest voxel edge in training in mm, [0.9, 1.1], or null"
        )
        return recipe
    recipe["size"] = list(found.input_shape[2:]) if found is not None and fixed else None
    recipe["divisor"] = (
        placeholder("number that must divide each axis of the input, for example 16")
        if found is None else found.divisor
    )  # fmt: skip
    recipe["orientation"] = placeholder(
        "directions of the axes in training, for example RAS or LPS, or null for axes as stored"
    )
    recipe["voxel_mm"] = placeholder(
        "voxel edges in mm that the network needs, [1, 1, 1], or null for any"
    )
    return recipe


def _expected(table: Mapping[str, Any], key: str) -> str:
    value: Any = table
    for part in key.split("."):
        value = value[part]
    if not isinstance(value, list):
        return str(value).partition(": ")[2]
    first = str(value[0]).partition(": ")[2]
    return first if len(value) == 1 else re.sub(r"name of (\w+ channel) 1", _names(value), first)


def _names(value: list[str]) -> str:
    return rf"names of {len(value)} \1s in order"


def _shapes(found: Measured) -> str:
    return ", ".join(f"{key!r} ({_times(shape)})" for key, shape in found.outputs.items())


def _count(tensors: Any) -> str:
    values: list[Tensor] = list(tensors)
    return f"{sum(value.numel() for value in values):,}"


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _or(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
