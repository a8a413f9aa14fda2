"""What is asked of a network, in a user's words: a target, and where it counts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroxai.core.errors import TargetError, suggestion
from neuroxai.core.outputs import Outputs
from neuroxai.core.restriction import Mask, Restriction
from neuroxai.core.restriction import Prediction as PredictedRegion
from neuroxai.core.target import Class, Predicted, Region, Target, named_target
from neuroxai.data.case import CLASSES, Case
from neuroxai.data.preprocessing import Prepared
from neuroxai.lesion import Lesion

Within = Restriction | NDArray[Any] | Tensor | str


def as_target(target: Target | str | int | None, outputs: Outputs) -> Target:
    """Return what a target, a word, a number, or nothing means for a network."""
    if isinstance(target, Target):
        return target
    if isinstance(target, int):
        return Class(target)
    if isinstance(target, str):
        return named_target(target, outputs)
    return Region(next(iter(outputs.regions))) if outputs.regions else Predicted()


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
        kind, _, number = within.partition(":")
        if within == "prediction":
            return PredictedRegion()
        if kind == "lesion" and (number or "1").isdigit():
            return Lesion(int(number or 1))
        if within == "truth":
            return _truth(question, outputs, subject, prepared)
        raise TargetError(
            f"within={within!r} is unknown: {suggestion(within, ('prediction', 'truth', 'lesion'))}"
        )
    if prepared is None:
        return Mask(torch.as_tensor(within))
    values = prepared.placement.to_network(np.asarray(within))
    return Mask(torch.from_numpy(values), "given mask")


def _truth(
    question: Target, outputs: Outputs, subject: Case | Tensor, prepared: Prepared | None
) -> Restriction:
    if not isinstance(subject, Case) or subject.truth is None or prepared is None:
        raise TargetError("within='truth' needs a case with a label file, and this has none")
    names = outputs.names
    channels = question.channels(outputs, torch.zeros(1, len(names), 1, 1))[0].tolist()
    members = [CLASSES.index(names[c]) for c in channels if names[c] in CLASSES]
    values = prepared.placement.to_network(np.isin(subject.truth, members).astype(np.uint8))
    return Mask(torch.from_numpy(values), "truth")
