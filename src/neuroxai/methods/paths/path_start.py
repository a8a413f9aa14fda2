"""Where a path starts: the baseline, and what remains of the answer there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from neuroxai.core.probe.probe import Probe
from neuroxai.core.spatial import per_sample
from neuroxai.methods.paths.baseline_names import AUTO, MIRROR
from neuroxai.methods.paths.baselines import Baseline, baseline_image, name_of
from neuroxai.methods.paths.remaining import Remaining, remaining_answer

CANDIDATES = ("zero", "brain", "blur", MIRROR)
"""Baselines that ``auto`` chooses from; the first one if several are equally good."""

_EARLY = 1e-3
"""Position on the path before which a change of the score is a jump."""

JUMP = 0.25
"""Fraction of the score's change that makes it one."""

_LEAST_CHANGE = 0.1
"""Change of the score relative to the candidates' largest below which a baseline is not chosen: a
target over the whole image is the same at the mirror image, where the tumor is on the other side,
and rounding would dominate the map."""

_EQUAL_DIGITS = 2
"""Digits to which remaining shares are compared: 1 % of a small tumor is a voxel or two."""


@dataclass(frozen=True, eq=False)
class Start:
    """The baselines of a batch.

    Attributes
    ----------
    image
        The baseline, of the input's shape.
    at_x
        The target's value ``(B,)`` at the input.
    remaining
        What remains of the answer at the baseline.
    names
        The baseline of each sample.
    tried
        What ``auto`` found at each baseline, per sample; empty for a given baseline.
    """

    image: Tensor
    at_x: Tensor
    remaining: Remaining
    names: tuple[str, ...]
    tried: dict[str, dict[str, list[Any]]] = field(default_factory=dict)

    @property
    def score(self) -> Tensor:
        """The target's value ``(B,)`` at the baseline."""
        return self.remaining.score

    @property
    def moved(self) -> bool:
        """Whether ``auto`` chose another baseline than zero for any sample."""
        return bool(self.tried) and any(name != CANDIDATES[0] for name in self.names)

    @property
    def diagnostics(self) -> dict[str, Any]:
        """The baselines and what remains there, ready for JSON."""
        chosen = {"baselines": list(self.names), **self.remaining.describe()}
        return {**chosen, "tried_baselines": self.tried} if self.tried else chosen


def start_passes(baseline: Baseline) -> int:
    """Return the largest number of forward passes that :func:`path_start` takes.

    Examples
    --------
    >>> start_passes("auto"), start_passes("blur")
    (8, 1)
    """
    return 2 * len(CANDIDATES) if isinstance(baseline, str) and baseline == AUTO else 1


def path_start(baseline: Baseline, probe: Probe, x: Tensor, generator: torch.Generator) -> Start:
    r"""Return the baselines of a path method; ``auto`` depends on the network.

    A map along a path explains what changes from the baseline to the image. It says nothing of a
    tumor that is still predicted at the baseline, nor if the score jumps at the beginning of the
    path, before the first gradient:

    .. math:: |S(b + 10^{-3} (x - b)) - S(b)| > 0.25 \, |S(x) - S(b)|

    A network with instance norms, which responds to contrast rather than brightness, jumps so at a
    zero image. Among ``zero`` (the paper's), ``brain``, ``blur`` and, where the left-right axis is
    known, ``mirror``, ``auto`` takes for each sample the one where the path does not jump and the
    smallest share of the prediction remains, to 1 %; the earlier one if they are equal. If the path
    jumps at all of them, it takes the one with the smallest jump. If ``zero`` does not jump and
    nothing remains there, the others are not examined.

    Raises
    ------
    MethodError
        As :func:`~neuroxai.methods.paths.baselines.baseline_image`.
    """
    at_x = probe.score(x)
    if not isinstance(baseline, str) or baseline != AUTO:
        image = baseline_image(baseline, probe, x, generator)
        names = (name_of(baseline),) * len(x)
        return Start(image, at_x, remaining_answer(probe, image, at_x), names)
    tried: list[_Candidate] = []
    for name in CANDIDATES:
        if name == MIRROR and probe.left_right_axis is None:
            continue
        image = baseline_image(name, probe, x, generator)
        tried.append(_examine(name, image, probe, x, at_x))
        if len(tried) == 1 and all(tried[0].is_perfect(b) for b in range(len(x))):
            break
    chosen = [_choose(tried, b) for b in range(len(x))]
    names = tuple(each.name for each in chosen)
    for name in dict.fromkeys(names):  # only one image is held at a time
        of_name = torch.tensor([each == name for each in names], device=x.device)
        other = baseline_image(name, probe, x, generator)
        image = other if bool(of_name.all()) else torch.where(per_sample(of_name, x), other, image)
    described = {each.name: each.describe() for each in tried}
    return Start(image, at_x, _selected(chosen), names, described)


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A baseline: what remains there, and how much of the score's change is a jump."""

    name: str
    remaining: Remaining
    jump: list[float]
    change: list[float]

    def share(self, b: int) -> float:
        """Return the remaining share of the prediction; 0 if it is unknown."""
        return round(self.remaining.prediction[b] or 0.0, _EQUAL_DIGITS)

    def is_perfect(self, b: int) -> bool:
        """Return whether the path does not jump and nothing of the prediction remains."""
        return self.jump[b] <= JUMP and self.share(b) == 0

    def describe(self) -> dict[str, list[Any]]:
        """Return what was found, ready for JSON."""
        return {
            "score": self.remaining.score.double().tolist(),
            **self.remaining.describe(),
            "jump": self.jump,
        }


def _examine(name: str, image: Tensor, probe: Probe, x: Tensor, at_x: Tensor) -> _Candidate:
    """Examine a baseline with two forward passes."""
    remaining = remaining_answer(probe, image, at_x)
    early = probe.score(image + _EARLY * (x - image)).double()
    at_b = remaining.score.double()
    changes = (at_x.double() - at_b).abs().tolist()
    jumps = (early - at_b).abs().tolist()
    # A path along which nothing changes explains nothing, which is as bad as a jump over all of it.
    relative = [
        jump / change if change > 0 else 1.0 for jump, change in zip(jumps, changes, strict=True)
    ]
    return _Candidate(name, remaining, relative, changes)


def _choose(tried: Sequence[_Candidate], b: int) -> _Candidate:
    """Return the best candidate for one sample."""
    smooth = [each for each in tried if each.jump[b] <= JUMP]
    if not smooth:
        return min(tried, key=lambda each: each.jump[b])
    if smooth[0].name == CANDIDATES[0] and smooth[0].is_perfect(b):
        return smooth[0]
    least = _LEAST_CHANGE * max(each.change[b] for each in smooth)
    return min((each for each in smooth if each.change[b] >= least), key=lambda each: each.share(b))


def _selected(chosen: Sequence[_Candidate]) -> Remaining:
    """Return what remains at the candidate of each sample."""
    return Remaining(
        torch.stack([each.remaining.score[b] for b, each in enumerate(chosen)]),
        tuple(each.remaining.prediction[b] for b, each in enumerate(chosen)),
        tuple(each.remaining.target[b] for b, each in enumerate(chosen)),
    )
