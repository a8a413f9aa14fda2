"""Targets and restrictions, from what a user gives."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroxai.core.errors import TargetError
from neuroxai.core.target.contrast import parse_question
from neuroxai.core.target.lesion import Lesion
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.predicted_mask import predicted_mask
from neuroxai.core.target.restriction import Image, Mask, Restriction, check_mask, is_soft
from neuroxai.core.target.restriction import Prediction as PredictedRegion
from neuroxai.core.target.scale import OutputScale
from neuroxai.core.target.score import Score
from neuroxai.core.target.target import Class, Predicted, Region, Target
from neuroxai.core.target.within import FILE, parse_within
from neuroxai.core.vocabulary import standard_class
from neuroxai.data.case import CLASSES, REGIONS, Case
from neuroxai.data.mask_files import read_mask
from neuroxai.data.preparation import Prepared
from neuroxai.patient.lesions import label_components
from neuroxai.workflows.arrays import tensor_of

_MOST = 0.5
"""Share of an image: a target predicted in more than half of it is the image's main subject."""

_GIVEN = "given mask"
"""Name of a mask of the user's, for the provenance."""

TargetLike = Target | str | SupportsIndex | NDArray[np.integer[Any]] | Callable[[Tensor], Tensor]
"""A target; a class or region by name; a class by number; numbers of the classes of all samples, as
a tensor or array; a function of the output."""

OneTarget = TargetLike | Sequence[int | str]
"""One target; a list or tuple has the class of each sample."""

TargetsLike = TargetLike | Sequence[TargetLike] | None
"""One target, several, or None for the default."""

RestrictionLike = Restriction | NDArray[Any] | Tensor | str | Path
"""A restriction; a mask or its file; ``image``, ``prediction``, ``truth`` or ``lesion:N``."""


def as_target(target: TargetLike | None, outputs: Outputs) -> Target:
    """Return the target that a user's value stands for.

    Parameters
    ----------
    target
        A target, a name (``ET vs NCR`` for a contrast), a number (of Python, NumPy, or a tensor), a
        tensor or array of one number per sample, a function of the output, or None for the
        default: the first region, or what is predicted.
    outputs
        The names of classes and regions.

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
        return parse_question(target, outputs)
    if callable(target):
        return Score(target)
    try:
        if isinstance(target, (Tensor, np.ndarray)) and target.ndim == 1:
            return _each_class(target.tolist())
        return Class(operator.index(target))
    except TypeError:
        raise TargetError(
            f"target is {target!r}, expected the number or name of a class, the name of a region, "
            "a target, or a function of the output"
        ) from None


def one_target(target: OneTarget | None, outputs: Outputs) -> Target:
    """Return one target; a list or tuple has the class of each sample.

    Examples
    --------
    >>> one_target([0, 2, 1], Outputs()).which
    (0, 2, 1)
    """
    if isinstance(target, Sequence) and not isinstance(target, str):
        return _each_class(target)
    return as_target(target, outputs)


def _each_class(classes: Sequence[int | str]) -> Class:
    return Class(tuple(c if isinstance(c, str) else operator.index(c) for c in classes))


def as_targets(targets: TargetsLike, outputs: Outputs) -> list[Target]:
    """Return the targets that a user's value stands for; see :func:`as_target`.

    Examples
    --------
    >>> as_targets([0, 2], Outputs()) == [Class(0), Class(2)]
    True
    """
    if isinstance(targets, Sequence) and not isinstance(targets, str):
        return [as_target(target, outputs) for target in targets] or [as_target(None, outputs)]
    return [as_target(targets, outputs)]


def is_sequence(targets: TargetsLike) -> bool:
    """Whether several targets are given; a string is one target."""
    return isinstance(targets, Sequence) and not isinstance(targets, str)


def every_target(outputs: Outputs) -> list[Target]:
    """Return each region, and each class that is not a region by itself.

    Examples
    --------
    >>> outputs = Outputs(("background", "ED", "ET"), {"WT": ("ED", "ET"), "ET": ("ET",)})
    >>> [target.name for target in every_target(outputs)]
    ['WT', 'ET', 'background', 'ED']
    """
    alone = {members[0] for members in outputs.regions.values() if len(members) == 1}
    regions: list[Target] = [Region(name) for name in outputs.regions]
    return [*regions, *(Class(name) for name in outputs.names if name not in alone)]


def lesion_targets(outputs: Outputs) -> list[Target]:
    """Return each region, and each class that is not a region by itself, but the background.

    Examples
    --------
    >>> [target.name for target in lesion_targets(Outputs(("Background", "vessel")))]
    ['vessel']
    """
    return [each for each in every_target(outputs) if standard_class(each.name) != CLASSES[0]]


def every_lesion(outputs: Outputs) -> list[Target]:
    """Return :func:`lesion_targets`, or the default target if there are none by name.

    Examples
    --------
    >>> every_lesion(Outputs())
    [Predicted(scale='logit', within=None)]
    """
    return (outputs.regions and lesion_targets(outputs)) or [as_target(None, outputs)]


def restrict_by_default(targets: Sequence[Target]) -> list[Target]:
    """Return targets, those without a restriction restricted to where they are predicted.

    Where nothing is predicted, the target is the mean over the whole image, with a note.

    Examples
    --------
    >>> restrict_by_default([Class(1)])[0].within
    Prediction(name='prediction', by_default=True)
    """
    by_default = PredictedRegion(by_default=True)
    return [
        each if each.within is not None else _replaced(each, within=by_default) for each in targets
    ]


def rescale_targets(targets: Sequence[Target], scale: OutputScale) -> list[Target]:
    """Return targets on a scale.

    Raises
    ------
    TargetError
        If the scale is unknown.
    """
    return [_replaced(each, scale=scale) for each in targets]


def _replaced(target: Target, **changes: Any) -> Target:
    changed: Target = dataclasses.replace(target, **changes)  # type: ignore[type-var]
    return changed


def restrict_targets(
    targets: Sequence[Target],
    within: RestrictionLike,
    outputs: Outputs,
    case: Case | None = None,
    prepared: Prepared | None = None,
) -> list[Target]:
    """Return targets restricted to ``image``, ``prediction``, ``truth``, ``lesion:N`` or a mask.

    A mask is an array, or the path of a file.

    Parameters
    ----------
    targets
        The targets.
    within
        The restriction. A mask is on the case's own grid; without a case on the network's grid.
    outputs
        The names of classes and regions.
    case, prepared
        The case and its network input; None for a tensor.

    Raises
    ------
    TargetError
        If the restriction does not exist.
    """
    if isinstance(within, str) and parse_within(within)[0] == "truth":
        restrictions = [_truth(target, outputs, case, prepared) for target in targets]
    else:
        restrictions = [_restriction(within, case, prepared)] * len(targets)
    return [
        _replaced(target, within=restriction)
        for target, restriction in zip(targets, restrictions, strict=True)
    ]


def place_notes(target: Target, outputs: Outputs, output: Tensor) -> tuple[str, ...]:
    """Return a note if a segmenter's target is predicted in a small part of the image, or nowhere.

    Parameters
    ----------
    target
        The target. There is a note only for one of the whole image, if that was requested.
    outputs
        The names of classes and regions.
    output
        The network's output, ``(B, K)`` or ``(B, K, *S)``.
    """
    if output.dim() == 2 or not isinstance(target.within, Image):
        return ()
    bound = target.bind(outputs, output)
    try:
        predicted = predicted_mask(bound.outputs, bound.channels, output)
    except TargetError:  # the output's activation is unknown
        return ()
    share = float(predicted.float().mean())
    name = bound.description["name"]
    if share > _MOST:
        return ()
    if share == 0:
        return (
            f"target {name}: the network predicts no {name} in this image; its maps show evidence "
            "for and against it, not a location",
        )
    return (
        f"target {name}: the mean over the whole image, of which {share:.1%} is predicted to be "
        f"{name}; its maps explain the rest of the image as well",
    )


def _restriction(
    within: RestrictionLike, case: Case | None, prepared: Prepared | None
) -> Restriction:
    """Return a restriction that is the same for every target."""
    if isinstance(within, Restriction):
        return within
    if isinstance(within, str):
        kind, rank = parse_within(within)
        if kind == "lesion":
            return Lesion(label_components, rank)
        if kind != FILE:
            return Image() if kind == "image" else PredictedRegion()
        within = Path(within)
    if isinstance(within, Path):
        return _mask_of_file(within, case, prepared)
    return _mask(within, prepared)


def _mask_of_file(path: Path, case: Case | None, prepared: Prepared | None) -> Mask:
    if case is None or prepared is None:
        raise TargetError(
            f"within={str(path)!r} is the file of a mask on a scan's grid, but the input is a "
            "tensor: give an array on its grid"
        )
    found = read_mask(path, case)
    return _mask(found.data, prepared, path.name, found.sha256)


def _as_tensor(values: NDArray[Any]) -> Tensor:
    if values.dtype.kind not in "biufc":
        raise TargetError(f"the mask has values of type {values.dtype}, expected numbers or bool")
    # torch compares no unsigned integers but bytes.
    return tensor_of(values.astype(np.int64) if values.dtype.kind in "iu" else values)


def _mask(
    values: NDArray[Any] | Tensor,
    prepared: Prepared | None,
    name: str = _GIVEN,
    sha256: str | None = None,
) -> Mask:
    """Return a mask on the network's grid; without a case it is on that grid already."""
    given = values.detach() if isinstance(values, Tensor) else _as_tensor(np.asarray(values))
    if prepared is None:
        return Mask(given)
    given = given.cpu()
    check_mask(given, name)
    # Resampling interpolates weights linearly at least, and labels by the nearest voxel.
    soft = is_soft(given)
    on_patient = given.numpy().astype(np.float32 if soft else np.uint8)
    on_grid = torch.from_numpy(prepared.placement.to_network(on_patient))
    # Cubic interpolation overshoots.
    return Mask(on_grid.clamp(0, 1) if soft else on_grid, name, sha256)


def _truth(
    target: Target, outputs: Outputs, case: Case | None, prepared: Prepared | None
) -> Restriction:
    if case is None or case.truth is None or prepared is None:
        raise TargetError("within='truth' needs a case with a label file, which is missing here")
    names = outputs.names
    channels = target.channels(outputs, torch.zeros(1, len(names), 1, 1))[0].tolist()
    declared = {tuple(sorted(members)): region for region, members in outputs.regions.items()}
    region = declared.get(tuple(sorted(names[channel] for channel in channels)))
    if region is not None and region.upper() in REGIONS:
        members = [*_labels(region)]  # whatever the network calls the classes of the region
    else:
        members = [member for channel in channels for member in _labels(names[channel])]
    values = prepared.placement.to_network(np.isin(case.truth, members).astype(np.uint8))
    return Mask(torch.from_numpy(values), "truth")


def _labels(name: str) -> Sequence[int]:
    """Return the labels of the truth that form a class, or a region that is an output channel.

    Raises
    ------
    TargetError
        If the truth has no label of that name.
    """
    known: dict[str, tuple[str, ...]] = {each.lower(): (each,) for each in CLASSES}
    known.update({each.lower(): members for each, members in REGIONS.items()})
    standard = standard_class(name).lower()
    if standard in known:
        return [CLASSES.index(member) for member in known[standard]]
    names = ", ".join(dict.fromkeys((*CLASSES, *REGIONS)))
    raise TargetError(
        f"within='truth': label files have {names}, but not {name!r}: give a mask instead"
    )
