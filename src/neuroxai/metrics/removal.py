"""What the network says of copies of an image from which voxels were removed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroxai.core.errors import MetricError
from neuroxai.core.probe.probe import Probe
from neuroxai.core.target.bound_target import BoundTarget
from neuroxai.core.target.predicted_mask import predicted_mask
from neuroxai.methods.remover_names import check_remover
from neuroxai.methods.removers import Remover
from neuroxai.metrics.again import same_question
from neuroxai.metrics.base import Metric, require
from neuroxai.metrics.judged import Judged

VALUES = ("score", "soft_dice")
"""The target's value; or a segmenter's soft Dice against its own answer at the full image."""


def check_value(metric: str, value: str) -> None:
    """Raise if a value function is unknown."""
    require(value in VALUES, metric, f"value is {value!r}, expected {' or '.join(VALUES)}")


class Removal:
    """The network's answer to copies of the judged image; a context manager.

    Parameters
    ----------
    judged
        The map and the image.
    remover
        What takes the place of removed voxels, see :mod:`neuroxai.methods.removers`.
    value
        One of :data:`VALUES`.

    Attributes
    ----------
    full
        The value of the full image, ``(B,)``.
    forwards
        Forward passes per sample so far.
    """

    def __init__(self, judged: Judged, remover: str, value: str = "score") -> None:
        self.judged, self.value = judged, value
        self.probe: Probe = same_question(judged)
        self._name = remover
        self._opened = self.probe.at(judged.x)
        self.forwards = 1

    def __enter__(self) -> Removal:
        self._opened.__enter__()
        self._remover = Remover(self._name, self.probe, self.judged.x, self.judged.seed)
        self._output = self.probe.output()
        self._own = None
        if self.value == "soft_dice":
            self._own = own_answer(self.probe.target, self._output)
            if not bool(self._own.flatten(1).any(dim=1).all()):
                raise MetricError(
                    "soft Dice against the network's own answer needs a predicted region, and the "
                    "target is predicted nowhere: take value='score'"
                )
        self.full = self._value(self._output)
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.__exit__(*error)  # type: ignore[arg-type]

    def outputs(self, removed: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the output for each mask of removed voxels, ``(B, *S)`` or ``(B, C, *S)`` bool."""
        copies = self.probe.batch_size(self.judged.x)
        waiting: list[Tensor] = []
        for mask in removed:
            waiting.append(mask)
            if len(waiting) == copies:
                yield from self._answered(waiting)
                waiting = []
        if waiting:
            yield from self._answered(waiting)

    def image(self, removed: Tensor) -> Tensor:
        """Return the image without the removed voxels, ``(B, C, *S)``."""
        return self._remover(removed)

    def values(self, removed: Iterable[Tensor]) -> Tensor:
        """Return the value for each mask of removed voxels, ``(n, B)`` float64."""
        found = [self._value(output) for output in self.outputs(removed)]
        return torch.stack(found)

    def _answered(self, removed: list[Tensor]) -> Iterator[Tensor]:
        images = self._remover(torch.cat(removed))
        self.forwards += len(removed)
        yield from self.probe.output_at(images).split(len(self.judged.x))

    def _value(self, output: Tensor) -> Tensor:
        bound = self.probe.target
        if self._own is None:
            return bound.score(output).double().cpu()
        return soft_dice(self._own, region(bound, output)).cpu()


@dataclass(frozen=True)
class RemovalMetric(Metric):
    """Base of metrics that remove voxels and ask the network again.

    Parameters
    ----------
    remover
        What takes the place of removed voxels, see :mod:`neuroxai.methods.removers`.
    value
        ``score`` or ``soft_dice``.
    """

    family: ClassVar[str] = "faithfulness"
    bounds: ClassVar[tuple[float, float]] = (float("-inf"), float("inf"))
    unit: ClassVar[str] = "target"

    remover: str = "neighbors"
    value: str = "score"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_remover(self.name, self.remover)
        check_value(self.name, self.value)


def own_answer(bound: BoundTarget, output: Tensor) -> Tensor:
    """Return where the network predicts the target's classes, ``(B, *S)`` bool."""
    if output.dim() < 3:
        raise MetricError(_NO_SEGMENTER)
    return predicted_mask(bound.outputs, bound.channels, output)


_NO_SEGMENTER = "soft Dice needs a segmenter: take value='score' for a classifier"


def region(bound: BoundTarget, output: Tensor) -> Tensor:
    """Return the probability of the target's classes at each voxel, ``(N, *S)`` float64.

    Raises
    ------
    MetricError
        For a classifier.
    """
    if output.dim() < 3:
        raise MetricError(_NO_SEGMENTER)
    probabilities = bound.outputs.probabilities(output).double()
    copies = len(output) // len(bound.channels)
    rows = bound.channels.repeat(copies, 1)
    chosen = [p[row].sum(dim=0) for p, row in zip(probabilities, rows, strict=True)]
    return torch.stack(chosen).clamp(max=1)


def soft_dice(own: Tensor, probability: Tensor) -> Tensor:
    r"""Return the soft Dice of probabilities with an answer, both ``(B, *S)``: ``(B,)``.

    .. math:: \frac{2 \sum_v m_v p_v}{\sum_v m_v + \sum_v p_v}
    """
    mask, p = own.double().flatten(1), probability.flatten(1)
    return 2 * (mask * p).sum(dim=1) / (mask.sum(dim=1) + p.sum(dim=1)).clamp(min=1e-12)
