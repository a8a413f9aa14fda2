"""What is asked of a network, in a user's words: a target, and where it counts."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroxai.core.errors import TargetError
from neuroxai.core.target.lesion import Lesion
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.restriction import Mask, Restriction
from neuroxai.core.target.restriction import Prediction as PredictedRegion
from neuroxai.core.target.target import Class, Predicted, Region, Target, named_target, predicted_at
from neuroxai.core.target.within import parse_within
from neuroxai.data.case import CLASSES, REGIONS, Case
from neuroxai.data.preparation import Prepared
from neuroxai.patient.lesions import label_components

_MOST = 0.5
"""Of an image: where more is predicted, the mean over all of it asks about that."""

Within = Restriction | NDArray[Any] | Tensor | str


def as_target(target: Target | str | SupportsIndex | None, outputs: Outputs) -> Target:
    """Return what a target, a word, a number, or nothing means for a network.

    A number may be one of Python, of NumPy, or a tensor of one.

    Raises
    ------
    TargetError
        If it is none of these.
    """
    if target is None:
        return Region(next(iter(outputs.regions))) if outputs.regions else Predicted()
    if isinstance(target, Target):
        return target
    if isinstance(target, str):
        return named_target(target, outputs)
    try:
        return Class(operator.index(target))
    except TypeError:
        raise TargetError(
            f"target is {target!r}, expected the number or name of a class, the name of a region, "
            "or a target"
        ) from None


def restricted(
    question: Target,
    within: Within,
    outputs: Outputs,
    subject: Case | Tensor,
    prepared: Prepared | None,
) -> Target:
    """Return the target with its place: ``prediction``, ``truth``, ``lesion:N`` or a mask.

    Raises
    ------
    TargetError
        If there is no such place.
    """
    return dataclasses.replace(  # type: ignore[type-var]
        question, within=_restriction(question, within, outputs, subject, prepared)
    )


def place_notes(question: Target, outputs: Outputs, output: Tensor) -> tuple[str, ...]:
    """Say that a target is the mean over much that the network does not call so."""
    if output.dim() == 2 or question.within is not None:
        return ()
    bound = question.bind(outputs, output)
    try:
        predicted = predicted_at(bound.outputs, bound.channels, output)
    except TargetError:  # nobody can tell
        return ()
    share = float(predicted.float().mean())
    name = bound.description["name"]
    if share > _MOST:
        return ()
    if share == 0:
        return (
            f"target {name}: nothing is predicted to be {name}; its maps say what speaks for and "
            "against it, not where it is",
        )
    return (
        f"target {name}: the mean over the whole image, of which {share:.1%} is predicted to be "
        f"{name}; much of its maps says why the rest is not. To ask about the predicted part "
        "alone: within='prediction' (--within prediction)",
    )


def _restriction(
    question: Target,
    within: Within,
    outputs: Outputs,
    subject: Case | Tensor,
    prepared: Prepared | None,
) -> Restriction:
    if isinstance(within, Restriction):
        return within
    if isinstance(within, str):
        kind, number = parse_within(within)
        if kind == "prediction":
            return PredictedRegion()
        if kind == "lesion":
            return Lesion(label_components, number)
        return _truth(question, outputs, subject, prepared)
    if prepared is None:
        return Mask(torch.as_tensor(within))
    given = within.detach().cpu().numpy() if isinstance(within, Tensor) else np.asarray(within)
    # As labels, whatever numbers hold it: gray values would be interpolated, and the mask grow.
    marked = (np.nan_to_num(given) != 0).astype(np.uint8)
    return Mask(torch.from_numpy(prepared.placement.to_network(marked)), "given mask")


def _truth(
    question: Target, outputs: Outputs, subject: Case | Tensor, prepared: Prepared | None
) -> Restriction:
    if not isinstance(subject, Case) or subject.truth is None or prepared is None:
        raise TargetError("within='truth' needs a case with a label file, and this has none")
    names = outputs.names
    channels = question.channels(outputs, torch.zeros(1, len(names), 1, 1))[0].tolist()
    members = [member for channel in channels for member in _labels(names[channel])]
    values = prepared.placement.to_network(np.isin(subject.truth, members).astype(np.uint8))
    return Mask(torch.from_numpy(values), "truth")


def _labels(name: str) -> Sequence[int]:
    """Return which labels of a truth form a class or, for networks whose classes overlap, a region.

    Raises
    ------
    TargetError
        If a truth has nothing of that name.
    """
    known: dict[str, tuple[str, ...]] = {each.lower(): (each,) for each in CLASSES}
    known.update({each.lower(): members for each, members in REGIONS.items()})
    if name.lower() in known:
        return [CLASSES.index(member) for member in known[name.lower()]]
    words = ", ".join(dict.fromkeys((*CLASSES, *REGIONS)))
    raise TargetError(
        f"within='truth': a label file knows {words}, but not {name!r}: give a mask of it"
    )
