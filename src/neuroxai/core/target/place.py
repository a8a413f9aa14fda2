"""Place of a target: where a segmenter's output is averaged, once its prediction is known."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from neuroxai.core.errors import TargetError
from neuroxai.core.spatial import spatial_shape
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.predicted_mask import predicted_mask
from neuroxai.core.target.restriction import Image, Prediction, Restriction
from neuroxai.core.vocabulary import place_in_words

EXCLUSIVE_NOTE = (
    "the prediction is the class with the largest output, as for exclusive classes; if classes "
    "overlap, give outputs=Outputs(activation='sigmoid')"
)
_INSTEAD = "so the target is the mean over the whole image"


@dataclass(frozen=True, eq=False)
class Place:
    """Where a target is averaged.

    Attributes
    ----------
    name
        Name of the place, ``image`` for the whole image; None for a classifier.
    mask
        ``(B, *S)`` bool or weights in [0, 1]; None for the whole output.
    notes
        Sentences for the reader of a map.
    by_default
        Whether the place was chosen because none was requested.
    """

    name: str | None
    mask: Tensor | None = None
    notes: tuple[str, ...] = ()
    by_default: bool = False


def find_place(
    name: str, within: Restriction | None, outputs: Outputs, channels: Tensor, output: Tensor
) -> Place:
    """Return the place of a target at an output ``(B, K)`` or ``(B, K, *S)``.

    Parameters
    ----------
    name
        The target's name, for messages.
    within
        The restriction; None for the whole image.
    outputs
        Meaning of the output channels.
    channels
        Channels of the target, ``(B, n)``.
    output
        The model output at the explained point.

    Raises
    ------
    TargetError
        If the restriction is empty, or a classifier's target is restricted.
    """
    if isinstance(within, Prediction) and within.by_default:
        return _default(name, outputs, channels, output)
    if output.dim() == 2:
        if within is None:
            return Place(None)
        raise TargetError(
            f"target {name}: a classifier's output has no spatial axes to restrict to "
            f"{place_in_words(within.name)}; leave out within="
        )
    if within is None or isinstance(within, Image):
        return Place(Image.name)
    predicted = torch.zeros_like(output[:, 0], dtype=torch.bool)
    if within.of_prediction:
        predicted = predicted_mask(outputs, channels, output)
    covered = outputs.covered(output)
    placed = within if covered is None else within.on_output(covered)
    mask = placed.mask(predicted, spatial_shape(output))
    empty = _empty_samples(mask)
    if empty:
        raise TargetError(
            f"target {name}: the restriction to {place_in_words(within.name)} is empty "
            f"(sample {empty[0]}), so there is nothing to explain"
        )
    weighted = " (weighted)" if mask.is_floating_point() else ""
    notes = _prediction_notes(outputs, output) if within.of_prediction else ()
    return Place(f"{within.name}{weighted}", mask, notes)


def _default(name: str, outputs: Outputs, channels: Tensor, output: Tensor) -> Place:
    """Return the predicted region, or the whole image where nothing is predicted."""
    if output.dim() == 2:
        return Place(None)
    if prod(spatial_shape(output)) == 1:  # a classifier with axes of length one
        return Place(Image.name, by_default=True)
    if output.shape[1] == 1 and outputs.activation == "none":
        note = f"target {name}: a regression has no predicted region, {_INSTEAD}"
        return Place(Image.name, notes=(note,), by_default=True)
    try:
        mask = predicted_mask(outputs, channels, output)
    except TargetError as error:  # the single channel may be a logit or a probability
        note = f"target {name}: the predicted region is unknown, {_INSTEAD}: {error}"
        return Place(Image.name, notes=(note,), by_default=True)
    empty, notes = _empty_samples(mask), _prediction_notes(outputs, output)
    if not empty:
        return Place(Prediction.name, mask, notes, by_default=True)
    nowhere = f"target {name}: the network predicts no {name} in this image"
    if len(empty) == len(mask):
        nowhere = (
            f"{nowhere}, {_INSTEAD}; its maps show evidence for and against it, not a location"
        )
        return Place(Image.name, notes=(*notes, nowhere), by_default=True)
    mask[empty] = True
    listed = ", ".join(map(str, empty))
    nowhere = f"target {name}: the network predicts no {name} in sample {listed}, {_INSTEAD} there"
    return Place(Prediction.name, mask, (*notes, nowhere), by_default=True)


def _empty_samples(mask: Tensor) -> list[int]:
    """Return the samples of a mask ``(B, *S)`` that have no voxel."""
    return [i for i, each in enumerate(mask.flatten(1).any(dim=1).tolist()) if not each]


def _prediction_notes(outputs: Outputs, output: Tensor) -> tuple[str, ...]:
    """Return what is assumed about where a network predicts a class."""
    unknown = outputs.activation is None and not outputs.activated and output.shape[1] > 1
    return (EXCLUSIVE_NOTE,) if unknown else ()
