"""What is explained: one scalar per sample, made from the model output.

All methods differentiate a target and nothing else. For a segmenter it is the global average of a
class's output map, which turns the segmenter into a multi-label classifier (Zeineldin et al. 2022,
doi:10.1007/s11548-022-02619-x); for a classifier it is the class's output.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from neuroxai.core.errors import TargetError, suggestion
from neuroxai.core.spatial import masked_mean, per_sample, spatial_mean, spatial_shape
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.restriction import Restriction

OutputScale = Literal["logit", "probability"]

SATURATION_NOTE = (
    "the target is a probability: near certainty it saturates and the map fades, "
    "logits do not have this fault"
)
ACTIVATED_NOTE = (
    "the network itself ends in softmax or sigmoid, so the target is a probability and the map "
    "fades near certainty"
)
UNIT_NOTE = (
    "all of the network's outputs lie between 0 and 1 and are taken for logits; if they are "
    "probabilities, say outputs=Outputs(activation='sigmoid', activated=True)"
)
STRONGEST_NOTE = (
    "where the target is predicted goes by the strongest channel, as of classes that exclude each "
    "other; if they overlap, say outputs=Outputs(activation='sigmoid')"
)


@dataclass(frozen=True, eq=False)
class BoundTarget:
    """A target fixed at the explained point: channels, scale and mask do not move along a path.

    Attributes
    ----------
    channels
        ``(B, n)`` long: the classes that form the target, per sample.
    mask
        ``(B, *S)`` bool over the output's grid, or None for the plain mean.
    """

    outputs: Outputs
    channels: Tensor
    scale: OutputScale
    mask: Tensor | None
    description: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def linear(self) -> bool:
        """Whether ``S`` is linear in the output, so that its slope is the same everywhere."""
        return self.channels.shape[1] == 1 and self.scale == "logit"

    def score(self, output: Tensor) -> Tensor:
        r"""Return ``S``, shape ``(N,)``, of an output of ``N = n·B`` samples, stacked by node.

        .. math:: S = \frac{1}{|M|} \sum_{v \in M} \log \sum_{c \in R} e^{z_{c,v}}

        over the mask ``M`` and the classes ``R``; for one class this is the mean of its logit. On
        the probability scale the inner term is the sum of the classes' probabilities.
        """
        copies = output.shape[0] // self.channels.shape[0]
        if self.scale == "probability":
            output = self.outputs.probabilities(output)
        chosen = self._chosen(output)
        if chosen.shape[1] == 1:
            joined = chosen
        elif self.scale == "probability" or self.outputs.activated:
            joined = chosen.sum(dim=1, keepdim=True)
        else:
            joined = chosen.logsumexp(dim=1, keepdim=True)
        if self.mask is None:
            return spatial_mean(joined).squeeze(1)
        repeated = self.mask.to(output.device).repeat(copies, *([1] * (self.mask.dim() - 1)))
        return masked_mean(joined.squeeze(1), repeated)

    @cached_property
    def _rows(self) -> list[list[int]]:
        """The channels as numbers, so that a score never waits for the device."""
        return [[int(c) for c in row] for row in self.channels.tolist()]

    def _chosen(self, output: Tensor) -> Tensor:
        """Return the target's channels of every sample, ``(N, n, *S)``."""
        first = self._rows[0]
        if any(row != first for row in self._rows):
            rows = itertools.cycle(self._rows)
            return torch.stack([sample[row] for sample, row in zip(output, rows, strict=False)])
        if len(first) == 1:
            return output[:, first[0] : first[0] + 1]
        return torch.stack([output[:, channel] for channel in first], dim=1)


class Target(ABC):
    """A scalar question to a network; see :class:`Class`, :class:`Region`, :class:`Predicted`."""

    within: Restriction | None
    output: OutputScale

    def __post_init__(self) -> None:
        scales = get_args(OutputScale)
        if self.output not in scales:
            raise TargetError(f"output is {self.output!r}: {suggestion(self.output, scales)}")

    @property
    @abstractmethod
    def name(self) -> str:
        """The word that names the target in files, tables and figures."""

    def word(self, outputs: Outputs, channels: Tensor) -> str:
        """Return the target's name once it is bound to ``channels``."""
        return self.name

    @abstractmethod
    def channels(self, outputs: Outputs, output: Tensor) -> Tensor:
        """Return the channels ``(B, n)`` that form the target."""

    def needs_output(self, outputs: Outputs) -> bool:
        """Return whether binding looks at an output's values, not only at its shape."""
        unknown = outputs.activation is None and not outputs.activated
        return unknown or self.within is not None

    def bind(self, outputs: Outputs, output: Tensor) -> BoundTarget:
        """Fix the target at the explained point.

        Parameters
        ----------
        outputs
            What the channels mean.
        output
            The model output at the explained point, ``(B, K)`` or ``(B, K, *S)``.

        Raises
        ------
        TargetError
            If the class or region does not exist, or the restriction is empty.
        """
        if output.dim() < 2:
            raise TargetError(
                f"the network returned a tensor of shape {tuple(output.shape)}, "
                "expected (batch, classes) or (batch, classes, *space)"
            )
        if outputs.names and len(outputs.names) != output.shape[1]:
            raise TargetError(
                f"the network returns {output.shape[1]} channels, its outputs name "
                f"{len(outputs.names)}: name as many"
            )
        output = output.detach()
        if outputs.activation is None and not outputs.activated and _looks_activated(output):
            outputs = replace(outputs, activated=True)
        channels = self.channels(outputs, output)
        notes: list[str] = []
        if self.output == "probability":
            outputs.probabilities(output[:1, :, ...])
            notes.append(SATURATION_NOTE)
        elif outputs.activated:
            notes.append(ACTIVATED_NOTE)
        elif outputs.activation is None and output.shape[1] > 1 and _within_unit(output):
            notes.append(UNIT_NOTE)
        mask = None
        if self.within is not None:
            if output.dim() == 2:
                raise TargetError(
                    f"target {self.name}: a classifier's output has no space to restrict to "
                    f"{self.within.name}; leave within= out"
                )
            predicted = torch.zeros_like(output[:, 0], dtype=torch.bool)
            if self.within.of_prediction:
                predicted = predicted_at(outputs, channels, output)
                if outputs.activation is None and output.shape[1] > 1:
                    notes.append(STRONGEST_NOTE)
            mask = self.within.mask(predicted, spatial_shape(output))
            empty = [i for i, m in enumerate(mask.flatten(1).any(dim=1).tolist()) if not m]
            if empty:
                raise TargetError(
                    f"target {self.name}: the restriction to {self.within.name} is empty "
                    f"(sample {empty[0]}), there is nothing to explain"
                )
        description = {
            "name": self.word(outputs, channels),
            "kind": type(self).__name__.lower(),
            "channels": channels.tolist(),
            "classes": [
                [outputs.names[c] if outputs.names else c for c in row] for row in channels.tolist()
            ],
            "scale": "probability" if outputs.activated else self.output,
            "within": self.within.name if self.within is not None else None,
        }
        return BoundTarget(outputs, channels, self.output, mask, description, tuple(notes))


@dataclass(frozen=True)
class Class(Target):
    """One class, by number or name.

    Parameters
    ----------
    which
        Output channel, or its name.
    output
        ``logit`` (default) or ``probability`` (what the paper differentiates; it saturates).
    within
        Restrict a segmenter's mean to a mask: see :mod:`neuroxai.core.target.restriction`.

    Examples
    --------
    >>> output = torch.arange(12.0).reshape(2, 3, 2)
    >>> Class(1).bind(Outputs(), output).score(output)
    tensor([2.5000, 8.5000])
    """

    which: int | str
    output: OutputScale = "logit"
    within: Restriction | None = None

    @property
    def name(self) -> str:
        """The class's name or number."""
        return str(self.which)

    def channels(self, outputs: Outputs, output: Tensor) -> Tensor:
        """Return the same channel for every sample."""
        channel = outputs.channel(self.which, output.shape[1])
        return torch.full((output.shape[0], 1), channel, device=output.device)


@dataclass(frozen=True)
class Region(Target):
    """A set of exclusive classes taken together, by name or as channel numbers.

    Its logit is the log-sum-exp of the classes' logits, so that softmax probability and logit keep
    their relation and a region of one class is that class.

    Examples
    --------
    >>> outputs = Outputs(("background", "NCR", "ED", "ET"), {"TC": ("NCR", "ET")}, "softmax")
    >>> logits = torch.zeros(1, 4, 2)
    >>> float(Region("TC", output="probability").bind(outputs, logits).score(logits))
    0.5
    """

    which: str | Sequence[int]
    output: OutputScale = "logit"
    within: Restriction | None = None

    @property
    def name(self) -> str:
        """The region's name, or its channels joined by a plus."""
        return self.which if isinstance(self.which, str) else "+".join(map(str, self.which))

    def channels(self, outputs: Outputs, output: Tensor) -> Tensor:
        """Return the region's classes, the same for every sample."""
        named = isinstance(self.which, str)
        members = _members_by_name(str(self.which), outputs) if named else self.which
        if not members:
            raise TargetError("a region of no classes cannot be explained: give at least one")
        indices = [outputs.channel(member, output.shape[1]) for member in members]
        return torch.tensor([[*dict.fromkeys(indices)]] * output.shape[0], device=output.device)


@dataclass(frozen=True)
class Predicted(Target):
    """A classifier's most likely class, chosen per sample at the explained point.

    Examples
    --------
    >>> output = torch.tensor([[0.0, 2.0], [3.0, 1.0]])
    >>> Predicted().bind(Outputs(), output).channels.tolist()
    [[1], [0]]
    """

    output: OutputScale = "logit"
    within: Restriction | None = None

    @property
    def name(self) -> str:
        """``predicted``, until it is known which class that is."""
        return "predicted"

    def needs_output(self, outputs: Outputs) -> bool:
        """Return that it does: the class is chosen by it."""
        return True

    def word(self, outputs: Outputs, channels: Tensor) -> str:
        """Return the predicted class's name, if all samples agree on it."""
        found = channels.unique().tolist()
        if len(found) > 1:
            return self.name
        return outputs.names[found[0]] if outputs.names else str(found[0])

    def channels(self, outputs: Outputs, output: Tensor) -> Tensor:
        """Return the argmax per sample."""
        if output.dim() != 2:
            known = ", ".join(dict.fromkeys((*outputs.regions, *outputs.names)))
            raise TargetError(
                "the predicted class of a segmenter differs from voxel to voxel: "
                f"name a class or a region{known and f', one of {known}'}"
            )
        return output.argmax(dim=1, keepdim=True)


def same_question(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two bound targets' descriptions ask the same, by whatever name.

    Examples
    --------
    >>> output = torch.tensor([[0.0, 2.0]])
    >>> asked = [each.bind(Outputs(), output).description for each in (Predicted(), Class(1))]
    >>> same_question(*asked)
    True
    """
    return all(one[key] == other[key] for key in ("channels", "scale", "within"))


def named_target(
    word: str,
    outputs: Outputs,
    *,
    output: OutputScale = "logit",
    within: Restriction | None = None,
) -> Target:
    """Return the target that a word on the command line means: region, class name or number.

    Examples
    --------
    >>> named_target("2", Outputs())
    Class(which=2, output='logit', within=None)
    """
    if word.isdecimal():
        which = int(word)
        if outputs.names:
            return Class(outputs.names[outputs.channel(which, len(outputs.names))], output, within)
        return Class(which, output, within)
    if word.lower() == "predicted":
        return Predicted(output, within)
    if word.lower() in [name.lower() for name in outputs.names]:
        return Class(_spelled(word, outputs.names), output, within)
    if word.lower() in [name.lower() for name in outputs.regions]:
        return Region(_spelled(word, outputs.regions), output, within)
    known = dict.fromkeys((*outputs.regions, *outputs.names))
    hint = (
        suggestion(word, known) if known else "the network's outputs have no names, give a number"
    )
    raise TargetError(f"target {word!r} is unknown: {hint}")


def _spelled(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    return next(name for name in known if name.lower() == word.lower())


def predicted_at(outputs: Outputs, channels: Tensor, output: Tensor) -> Tensor:
    """Return where a target of ``channels`` ``(B, n)`` is predicted, ``(B, *S)`` bool.

    Raises
    ------
    TargetError
        If nobody can tell.

    Examples
    --------
    >>> output = torch.tensor([[[0.0, 2.0, 1.0], [1.0, 1.0, 3.0]]])
    >>> predicted_at(Outputs(), torch.tensor([[1]]), output).tolist()
    [[True, False, True]]
    """
    alone = output.shape[1] == 1
    if alone and outputs.activation is None and not outputs.activated and _within_unit(output):
        raise TargetError(
            "the network's one output channel lies between 0 and 1, which a logit or a probability "
            "may: say which, by outputs=Outputs(activation='sigmoid'), with activated=True for a "
            "probability, to restrict a target to what is predicted"
        )
    if alone or outputs.activation == "sigmoid":
        threshold = 0.5 if outputs.activated else 0.0
        index = per_sample(channels, output).expand(*channels.shape, *spatial_shape(output))
        return (output.gather(1, index) > threshold).any(dim=1)
    winner = output.argmax(dim=1)
    return torch.stack([torch.isin(w, c) for w, c in zip(winner, channels, strict=True)])


def _within_unit(output: Tensor) -> bool:
    return bool(output.min() >= 0) and bool(output.max() <= 1)


def _looks_activated(output: Tensor) -> bool:
    if output.shape[1] < 2 or bool((output < 0).any()):
        return False
    sums = output.sum(dim=1)
    return torch.allclose(sums, torch.ones_like(sums), atol=1e-3)


def _members_by_name(word: str, outputs: Outputs) -> Sequence[int | str]:
    for name, classes in outputs.regions.items():
        if name.lower() == word.lower():
            return classes
    if word.lower() in [name.lower() for name in outputs.names]:
        return [word]
    known = dict.fromkeys((*outputs.regions, *outputs.names))
    if not known:
        raise TargetError(
            f"region {word!r} is unknown because the network's outputs have no names: "
            "give channel numbers, e.g. Region([1, 3]), or regions="
        )
    raise TargetError(f"region {word!r} is unknown: {suggestion(word, known)}")
