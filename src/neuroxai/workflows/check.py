"""A check of a loaded network: whether it runs, and which methods give a map of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from neuroxai.core.engine.untouched import untouched
from neuroxai.core.errors import ModelError, NeuroXAIError
from neuroxai.core.layers.units import find_units
from neuroxai.core.probe.output_location import OutputLocation
from neuroxai.core.spatial import spatial_shape
from neuroxai.core.target.target import Class
from neuroxai.data.preprocessing import Preprocessing
from neuroxai.methods import make_method, make_methods
from neuroxai.methods.base import Method
from neuroxai.models.model import Model
from neuroxai.patient.prediction import check_output_grid
from neuroxai.workflows.preparation import outputs_of
from neuroxai.workflows.session import open

_FEW = {"steps": 2, "samples": 2}
_EDGES = (32, 64, 96)
"""Edges in voxels of the inputs to try: networks halve an image five times at most, or less."""


@dataclass(frozen=True, eq=False)
class ModelCheck:
    """What a check of a network found.

    Attributes
    ----------
    model
        The network and its card.
    shape
        Shape of the random input, ``(1, C, *S)``.
    output_shape
        Shape of the output.
    layers
        The number of convolutions with a map.
    parameters
        The number of trained parameters.
    refused
        Method name to the reason why it gives no map; None if it gives one.
    """

    model: Model
    shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    layers: int
    parameters: int
    refused: Mapping[str, str | None]


def check_model(model: Model, *, seed: int = 0) -> ModelCheck:
    """Run a network and every method once on a small random input.

    Raises
    ------
    ModelError
        If the network does not run, or its output does not match its card or its input's grid.

    Examples
    --------
    >>> from neuroxai.models import load_model
    >>> found = check_model(load_model("deepseg-phantom"))
    >>> found.output_shape, found.refused["grad_cam"]
    ((1, 4, 32, 32, 32), None)
    """
    recipe = Preprocessing.from_dict(model.card.preprocessing)
    outputs = outputs_of(model)
    x, output = _first_that_runs(model, recipe, seed)
    if output.shape[1] != len(model.card.classes):
        raise ModelError(
            f"{model.folder}: the network returns {output.shape[1]} channels, its card names "
            f"{len(model.card.classes)}: {', '.join(model.card.classes)}"
        )
    located = replace(outputs, locate=OutputLocation(model.network, x, outputs))
    check_output_grid(output, spatial_shape(x), str(model.folder), located)
    # A segmenter of something else than tumors: its last class, because the first is background.
    last = model.card.task == "segmentation" and not outputs.regions
    target = Class(len(model.card.classes) - 1) if last else None
    session = open(model.network, x, outputs=outputs)
    refused: dict[str, str | None] = {}
    for method in make_methods("all"):
        try:
            session.explain(_quick(method), target, seed=seed)
            refused[method.name] = None
        except NeuroXAIError as error:
            refused[method.name] = str(error)
    return ModelCheck(
        model,
        tuple(x.shape),
        tuple(output.shape),
        len(find_units(model.network, x)),
        sum(parameter.numel() for parameter in model.network.parameters()),
        refused,
    )


def _first_that_runs(
    model: Model, recipe: Preprocessing, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the smallest random input that the network takes, and its output."""
    generator = torch.Generator().manual_seed(seed)
    channels, dimensions = len(recipe.modalities), 3 if recipe.plane is None else 2
    reason = ""
    for edge in _EDGES:
        length = -(-edge // recipe.divisor) * recipe.divisor
        size = recipe.size if dimensions == 2 and recipe.size else (length,) * dimensions
        x = torch.rand(1, channels, *size, generator=generator)
        try:
            with untouched(model.network), torch.no_grad():
                output = outputs_of(model).select(model.network(x), x)
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = reason or str(error).splitlines()[0]
            continue
        return x, output
    raise ModelError(f"{model.folder}: the network does not run on {channels} channels ({reason})")


def _quick(method: Method) -> Method:
    """Return a method with as few steps or samples as possible."""
    few = {name: value for name, value in _FEW.items() if name in method.parameters()}
    return make_method(method.name, few)
