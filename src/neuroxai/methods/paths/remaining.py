"""What remains of a network's answer at a baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from neuroxai.core.errors import TargetError
from neuroxai.core.probe.probe import Probe
from neuroxai.core.target.bound_target import BoundTarget
from neuroxai.core.target.predicted_mask import predicted_mask


@dataclass(frozen=True, eq=False)
class Remaining:
    """The answer at a baseline.

    Attributes
    ----------
    score
        The target's value ``(B,)`` there.
    prediction
        Per sample, the share of the voxels predicted as the target, within its restriction, that
        still are at the baseline; of a classifier, 1 if the class is still predicted and 0
        otherwise. None if the target is not predicted at the image, or if the network's output
        does not tell what is predicted.
    target
        Per sample, the target's value there relative to that at the image; None unless the latter
        is above 0.
    """

    score: Tensor
    prediction: tuple[float | None, ...]
    target: tuple[float | None, ...]

    def describe(self) -> dict[str, Any]:
        """Return the shares, ready for JSON."""
        return {
            "remaining_prediction": list(self.prediction),
            "remaining_target": list(self.target),
        }


def remaining_answer(probe: Probe, baseline: Tensor, at_x: Tensor) -> Remaining:
    """Return what remains of the answer at a baseline ``(B, C, *S)``, from one forward pass.

    Parameters
    ----------
    probe
        The network and target, at the explained point.
    baseline
        The baseline of each sample.
    at_x
        The target's value ``(B,)`` at the image.
    """
    output = probe.output_in_place(baseline)
    score = probe.target.score(output)
    shares = tuple(
        there / here if here > 0 else None
        for there, here in zip(score.tolist(), at_x.tolist(), strict=True)
    )
    return Remaining(score, _still_predicted(probe.target, probe.output(), output), shares)


def _still_predicted(
    target: BoundTarget, at_x: Tensor, at_baseline: Tensor
) -> tuple[float | None, ...]:
    """Return the share of the prediction at the image that is the same at the baseline."""
    unknown = (None,) * len(at_x)
    if target.outputs.activation == "none" or at_baseline.shape != at_x.shape:
        return unknown
    try:
        here, there = (
            predicted_mask(target.outputs, target.channels.to(each.device), each)
            for each in (at_x, at_baseline)
        )
    except TargetError:  # a single output that may be a logit or a probability
        return unknown
    if target.negated is not None:
        flipped = target.negated.to(here.device).reshape(-1, *[1] * (here.dim() - 1))
        here, there = here ^ flipped, there ^ flipped
    if target.mask is not None:
        here = here & (target.mask.to(here.device) > 0)
    here, there = here.reshape(len(here), -1), there.reshape(len(there), -1).to(here.device)
    counts = zip((here & there).sum(dim=1).tolist(), here.sum(dim=1).tolist(), strict=True)
    return tuple(kept / of if of else None for kept, of in counts)
