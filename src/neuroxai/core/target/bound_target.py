"""A target with its classes, scale and mask fixed, as it is differentiated."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from neuroxai.core.errors import TargetError
from neuroxai.core.spatial import masked_mean, spatial_mean
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.scale import OutputScale


@dataclass(frozen=True, eq=False)
class BoundTarget:
    """A target fixed at the explained point; it does not change along a path.

    Attributes
    ----------
    outputs
        Meaning of the output channels.
    channels
        ``(B, n)`` long, the classes of the target for each sample.
    scale
        Whether logits or probabilities are averaged.
    mask
        ``(B, *S)`` on the output's grid, bool or weights in [0, 1]; None for the mean over the
        whole output.
    description
        The target as plain values, for the provenance.
    notes
        Sentences for the reader of a map.
    negated
        ``(B,)`` bool, the samples whose score is that of the complement of the class; None if no
        sample's is.
    against
        The target whose score is subtracted, of a contrast.
    function
        The function of the output that is the score; None for the mean over channels.
    """

    outputs: Outputs
    channels: Tensor
    scale: OutputScale
    mask: Tensor | None
    description: dict[str, Any]
    notes: tuple[str, ...] = ()
    negated: Tensor | None = None
    against: BoundTarget | None = None
    function: Callable[[Tensor], Tensor] | None = None

    @property
    def linear(self) -> bool:
        """Whether the score is linear in the output, so that its gradient there is constant."""
        if self.function is not None or (self.against is not None and not self.against.linear):
            return False
        return self.channels.shape[1] == 1 and self.scale == "logit"

    def score(self, output: Tensor) -> Tensor:
        r"""Return the score ``S`` ``(N,)`` of an output of ``N = n·B`` samples, B per path node.

        .. math:: S = \sum_v m_v \log \sum_{c \in R} e^{z_{c,v}} \, \Big/ \, \sum_v m_v

        with the mask ``m`` and the classes ``R``; for one class this is its mean logit. On the
        probability scale, the inner term is the sum of the classes' probabilities.
        """
        score = self._mean(output) if self.function is None else self._called(output)
        return score if self.against is None else score - self.against.score(output)

    def probability(self, output: Tensor) -> Tensor:
        """Return the probability ``(N, *S)`` of the target's classes.

        Raises
        ------
        TargetError
            If the network's activation is unknown.
        """
        return self._select(self.outputs.probabilities(output)).sum(dim=1).clamp(max=1)

    def _called(self, output: Tensor) -> Tensor:
        """Return the score of a target that is a function."""
        if self.function is None:
            raise TargetError("the target is not a function of the output")
        given = self.outputs.probabilities(output) if self.scale == "probability" else output
        score = self.function(given)
        if not isinstance(score, Tensor) or score.numel() != len(output) or score.dim() > 2:
            got = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
            raise TargetError(
                f"target {self.description['name']} returns {got} for an output of "
                f"{tuple(output.shape)}, expected one number per sample, ({len(output)},)"
            )
        return score.reshape(len(output))

    def _mean(self, output: Tensor) -> Tensor:
        """Return the mean score of the target's classes over its place."""
        copies = output.shape[0] // self.channels.shape[0]
        if self.scale == "probability":
            output = self.outputs.probabilities(output)
        classes = self._select(output)
        if classes.shape[1] == 1:
            values = classes
        elif self.scale == "probability" or self.outputs.activated:
            values = classes.sum(dim=1, keepdim=True)
        else:
            values = classes.logsumexp(dim=1, keepdim=True)
        if self.mask is None:
            score = spatial_mean(values).squeeze(1)
        else:
            repeated = self.mask.to(output.device).repeat(copies, *([1] * (self.mask.dim() - 1)))
            score = masked_mean(values.squeeze(1), repeated)
        return score if self.negated is None else self._complement(score, self.negated)

    def _complement(self, score: Tensor, negated: Tensor) -> Tensor:
        """Return a score with the complement of the class where :attr:`negated` is set."""
        probability = self.scale == "probability" or self.outputs.activated
        negated = negated.to(score.device).repeat(len(score) // len(negated))
        return torch.where(negated, (1.0 if probability else 0.0) - score, score)

    @cached_property
    def _rows(self) -> list[list[int]]:
        """The channels as Python numbers, so that a score does not synchronize with a GPU."""
        return [[int(c) for c in row] for row in self.channels.tolist()]

    def _select(self, output: Tensor) -> Tensor:
        """Return the target's channels for every sample, ``(N, n, *S)``."""
        first = self._rows[0]
        if any(row != first for row in self._rows):
            rows = itertools.cycle(self._rows)
            return torch.stack([sample[row] for sample, row in zip(output, rows, strict=False)])
        if len(first) == 1:
            return output[:, first[0] : first[0] + 1]
        return torch.stack([output[:, channel] for channel in first], dim=1)


def same_target(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two descriptions of bound targets are the same, whatever their names.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class, Predicted
    >>> output = torch.tensor([[0.0, 2.0]])
    >>> bound = [target.bind(Outputs(), output) for target in (Predicted(), Class(1))]
    >>> same_target(bound[0].description, bound[1].description)
    True
    """
    if one["kind"] == "score" or other["kind"] == "score":
        return bool(one["name"] == other["name"])
    if ("against" in one) != ("against" in other):
        return False
    if "against" in one and not same_target(one["against"], other["against"]):
        return False
    return all(one[key] == other[key] for key in ("channels", "negated", "scale", "within"))
