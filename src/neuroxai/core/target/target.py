"""Targets: the scalar that is explained, one per sample, computed from the model output.

All methods differentiate a target and nothing else. For a segmenter it is the global average of a
class's output map, which turns the segmenter into a multi-label classifier (Zeineldin et al. 2022,
doi:10.1007/s11548-022-02619-x); for a classifier it is the class's output.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from neuroxai.core.errors import TargetError, suggestion
from neuroxai.core.target.bound_target import BoundTarget
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.place import find_place
from neuroxai.core.target.predicted_mask import in_unit_range, looks_activated
from neuroxai.core.target.restriction import Image, Mask, Restriction
from neuroxai.core.target.scale import OutputScale, check_scale

SATURATION_NOTE = (
    "the target is a probability, which saturates near certainty, where the map fades; logits do "
    "not saturate"
)
ACTIVATED_NOTE = (
    "the network ends in softmax or sigmoid, so the target is a probability and the map fades near "
    "certainty"
)
UNIT_RANGE_NOTE = (
    "all outputs of the network are between 0 and 1, so they may be probabilities, which saturate "
    "near certainty; if they are, give outputs=Outputs(activation='sigmoid', activated=True)"
)
NEGATED_NOTE = (
    "the network's only output is negative and is taken for a logit that rejects its class, so the "
    "target is minus the output; for a regression, give outputs=Outputs(activation='none')"
)


class Target(ABC):
    """A scalar function of the model output: :class:`Class`, :class:`Region`, :class:`Predicted`.

    Attributes
    ----------
    scale
        ``logit``, or ``probability``, which the paper differentiates and which saturates.
    within
        A mask to restrict a segmenter's mean to: see :mod:`neuroxai.core.target.restriction`. None
        for the default: a session restricts the target to the predicted region; a target that is
        bound without a session is the mean over the whole output.
    """

    within: Restriction | None
    scale: OutputScale

    def __post_init__(self) -> None:
        check_scale(self.scale)
        if self.within is not None and not isinstance(self.within, Restriction):
            raise TargetError(
                f"target: within is {self.within!r}, expected a restriction; name a place as "
                "nx.explain(..., within=...), which takes words, masks and files"
            )

    @property
    @abstractmethod
    def name(self) -> str:
        """The target's name in files, tables and figures."""

    def bound_name(self, outputs: Outputs, channels: Tensor, negated: Tensor) -> str:
        """Return the target's name once its channels are known."""
        return self.name

    def negated(self, outputs: Outputs, output: Tensor) -> Tensor:
        """Return ``(B,)`` bool, whether the complement of the class is explained."""
        return torch.zeros(len(output), dtype=torch.bool, device=output.device)

    @abstractmethod
    def channels(self, outputs: Outputs, output: Tensor) -> Tensor:
        """Return the channels ``(B, n)`` of the target."""

    def needs_output(self, outputs: Outputs) -> bool:
        """Return whether binding depends on an output's values, and not on its shape alone."""
        unknown = outputs.activation is None and not outputs.activated
        return unknown or not (self.within is None or isinstance(self.within, Image))

    def bind(self, outputs: Outputs, output: Tensor) -> BoundTarget:
        """Fix the target at the explained point.

        Parameters
        ----------
        outputs
            Meaning of the output channels.
        output
            The model output at the explained point, ``(B, K)`` or ``(B, K, *S)``.

        Raises
        ------
        TargetError
            If the class or region does not exist, or the restriction is empty.
        """
        _check(outputs, output)
        output = output.detach()
        if outputs.activation is None and not outputs.activated and looks_activated(output):
            outputs = replace(outputs, activated=True)
        channels = self.channels(outputs, output)
        unknown = outputs.activation is None and not outputs.activated
        maybe_probability = unknown and in_unit_range(output)
        notes: list[str] = []
        if self.scale == "probability":
            outputs.probabilities(output[:1, :, ...])  # raises if the activation is unknown
            notes.append(SATURATION_NOTE)
        elif outputs.activated:
            notes.append(ACTIVATED_NOTE)
        elif maybe_probability:
            notes.append(UNIT_RANGE_NOTE)
        negated = self.negated(outputs, output)
        any_negated = bool(negated.any())
        if outputs.activation is None and any_negated:
            notes.append(NEGATED_NOTE)
        place = find_place(self.name, self.within, outputs, channels, output)
        notes += place.notes
        scale: str = "probability" if outputs.activated else self.scale
        description = {
            "name": self.bound_name(outputs, channels, negated),
            "kind": type(self).__name__.lower(),
            "channels": channels.tolist(),
            "classes": [
                [outputs.names[c] if outputs.names else c for c in row] for row in channels.tolist()
            ],
            "negated": negated.tolist(),
            "scale": "output" if maybe_probability else scale,
            "within": place.name,
            "within_by_default": place.by_default,
            "within_sha256": self.within.sha256 if isinstance(self.within, Mask) else None,
        }
        return BoundTarget(
            outputs, channels, self.scale, place.mask, description, tuple(notes),
            negated if any_negated else None,
        )  # fmt: skip


def _check(outputs: Outputs, output: Tensor) -> None:
    if output.dim() < 2:
        raise TargetError(
            f"the network returned a tensor of shape {tuple(output.shape)}, "
            "expected (batch, classes) or (batch, classes, *space)"
        )
    if outputs.names and len(outputs.names) != output.shape[1]:
        raise TargetError(
            f"the network returns {output.shape[1]} channels, but outputs= names "
            f"{len(outputs.names)}: give one name per channel"
        )


@dataclass(frozen=True)
class Class(Target):
    """One class, by number or name.

    Parameters
    ----------
    which
        Output channel, or its name; or one for each sample of a batch.
    scale
        ``logit`` (default) or ``probability`` (what the paper differentiates; it saturates).
    within
        A mask to restrict a segmenter's mean to: see :mod:`neuroxai.core.target.restriction`.

    Examples
    --------
    >>> output = torch.arange(12.0).reshape(2, 3, 2)
    >>> Class(1).bind(Outputs(), output).score(output)
    tensor([2.5000, 8.5000])
    """

    which: int | str | tuple[int | str, ...]
    scale: OutputScale = "logit"
    within: Restriction | None = None

    @property
    def name(self) -> str:
        """The class's name or number; several are joined by commas."""
        return ",".join(map(str, self.which)) if isinstance(self.which, tuple) else str(self.which)

    def channels(self, outputs: Outputs, output: Tensor) -> Tensor:
        """Return the channel of every sample."""
        if isinstance(self.which, tuple):
            if len(self.which) != len(output):
                raise TargetError(
                    f"target {self.name}: {len(self.which)} classes for {len(output)} sample(s), "
                    "expected one for each; for several targets, use the session's explain"
                )
            each = [[outputs.channel(which, output.shape[1])] for which in self.which]
            return torch.tensor(each, device=output.device)
        channel = outputs.channel(self.which, output.shape[1])
        return torch.full((output.shape[0], 1), channel, device=output.device)


@dataclass(frozen=True)
class Region(Target):
    """A union of exclusive classes, by name or as channel numbers.

    Its logit is the log-sum-exp of the classes' logits: the logit of a region of one class is that
    of the class, and the softmax probability of a region is the sum of those of its classes.

    Parameters
    ----------
    which
        Name of the region, or its channel numbers.
    scale, within
        See :class:`Class`.

    Examples
    --------
    >>> outputs = Outputs(("background", "NCR", "ED", "ET"), {"TC": ("NCR", "ET")}, "softmax")
    >>> logits = torch.zeros(1, 4, 2)
    >>> float(Region("TC", scale="probability").bind(outputs, logits).score(logits))
    0.5
    """

    which: str | Sequence[int]
    scale: OutputScale = "logit"
    within: Restriction | None = None

    @property
    def name(self) -> str:
        """The region's name, or its channel numbers joined by a plus."""
        return self.which if isinstance(self.which, str) else "+".join(map(str, self.which))

    def channels(self, outputs: Outputs, output: Tensor) -> Tensor:
        """Return the region's classes, the same for every sample."""
        by_name = isinstance(self.which, str)
        classes = _classes_of_region(str(self.which), outputs) if by_name else self.which
        if not classes:
            raise TargetError("the region has no classes: give at least one channel number")
        indices = [outputs.channel(each, output.shape[1]) for each in classes]
        return torch.tensor([[*dict.fromkeys(indices)]] * output.shape[0], device=output.device)


@dataclass(frozen=True)
class Predicted(Target):
    """The class with the largest output of a classifier, for each sample at the explained point.

    If a classifier has a single output, a negative logit (or a probability below 0.5) rejects the
    class, and the rejection is explained: minus the logit, or one minus the probability. For a
    regression, give ``Outputs(activation="none")``. The target of a segmenter with a single channel
    is that channel.

    Parameters
    ----------
    scale, within
        See :class:`Class`.

    Examples
    --------
    >>> output = torch.tensor([[0.0, 2.0], [3.0, 1.0]])
    >>> Predicted().bind(Outputs(), output).channels.tolist()
    [[1], [0]]
    """

    scale: OutputScale = "logit"
    within: Restriction | None = None

    @property
    def name(self) -> str:
        """``predicted``; the class is known only once the target is bound."""
        return "predicted"

    def needs_output(self, outputs: Outputs) -> bool:
        """Return True: the output determines the class."""
        return True

    def bound_name(self, outputs: Outputs, channels: Tensor, negated: Tensor) -> str:
        """Return the predicted class's name, or ``predicted`` if it differs between samples."""
        classes = channels.unique().tolist()
        if len(classes) > 1 or len(negated.unique()) > 1:
            return self.name
        name = outputs.names[classes[0]] if outputs.names else str(classes[0])
        return f"not {name}" if bool(negated.any()) else name

    def negated(self, outputs: Outputs, output: Tensor) -> Tensor:
        """Return ``(B,)`` bool, where the single output of a classifier rejects its class."""
        if output.dim() != 2 or output.shape[1] != 1 or outputs.activation == "none":
            return super().negated(outputs, output)
        return output[:, 0] < (0.5 if outputs.activated else 0.0)

    def channels(self, outputs: Outputs, output: Tensor) -> Tensor:
        """Return the class with the largest output per sample."""
        if output.shape[1] == 1:
            return torch.zeros(len(output), 1, dtype=torch.long, device=output.device)
        if output.dim() != 2:
            known = ", ".join(dict.fromkeys((*outputs.regions, *outputs.names)))
            raise TargetError(
                "a segmenter predicts a class for every voxel, so 'predicted' is not a target: "
                f"name a class or a region{known and f', one of {known}'}"
            )
        return output.argmax(dim=1, keepdim=True)


def parse_target(
    text: str,
    outputs: Outputs,
    *,
    scale: OutputScale = "logit",
    within: Restriction | None = None,
) -> Target:
    """Return the target for a text of the command line: a region, class name or class number.

    Raises
    ------
    TargetError
        If the outputs have no class or region of this name.

    Examples
    --------
    >>> parse_target("2", Outputs())
    Class(which=2, scale='logit', within=None)
    """
    if text.isdecimal():
        which = int(text)
        if outputs.names:
            return Class(outputs.names[outputs.channel(which, len(outputs.names))], scale, within)
        return Class(which, scale, within)
    if text.lower() == "predicted":
        return Predicted(scale, within)
    name = _match(text, outputs.names)
    if name is not None:
        return Class(name, scale, within)
    name = _match(text, outputs.regions)
    if name is not None:
        return Region(name, scale, within)
    known = dict.fromkeys((*outputs.regions, *outputs.names))
    hint = suggestion(text, known) if known else "the outputs have no names, give a class number"
    raise TargetError(f"unknown target {text!r}: {hint}")


def _match(text: str, names: Sequence[str] | Mapping[str, Any]) -> str | None:
    """Return the name that equals a text up to upper and lower case."""
    return next((name for name in names if name.lower() == text.lower()), None)


def _classes_of_region(text: str, outputs: Outputs) -> Sequence[int | str]:
    region = _match(text, outputs.regions)
    if region is not None:
        return outputs.regions[region]
    if _match(text, outputs.names) is not None:
        return [text]
    known = dict.fromkeys((*outputs.regions, *outputs.names))
    if not known:
        raise TargetError(
            f"unknown region {text!r}: the network's classes have no names, so give channel "
            "numbers, for example Region([1, 3]), or Outputs(regions=...)"
        )
    raise TargetError(f"unknown region {text!r}: {suggestion(text, known)}")
