"""Properties that a map of a method should have by definition, measured on one input."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neuroxai.core.spatial import channel_range, per_sample
from neuroxai.core.target.fixed import Fixed
from neuroxai.methods.paths.baselines import baseline_image
from neuroxai.metrics.again import map_again, other_class, same_question
from neuroxai.metrics.base import Measured, Metric, require
from neuroxai.metrics.boxes import box_slices, boxes
from neuroxai.metrics.judged import Judged

NAN = float("nan")


@dataclass(frozen=True)
class Completeness(Metric):
    r"""Gap between the map's sum and the change of the target from a baseline (arXiv:1703.01365).

    .. math:: \frac{|\sum_i a_i - (S(x) - S(b))|}{|S(x) - S(b)|}

    Lower is better. It is necessary and not sufficient: a map with a small gap may be wrong, and
    one from a baseline that still shows the tumor explains little. Undefined where the target is
    the same at the baseline.

    Parameters
    ----------
    baseline
        Name of the baseline, see :func:`~neuroxai.methods.paths.baselines.baseline_image`.
    """

    name: ClassVar[str] = "completeness"
    title: ClassVar[str] = "Completeness gap"
    family: ClassVar[str] = "axioms"
    citation: ClassVar[str] = "arXiv:1703.01365"
    higher_is_better: ClassVar[bool | None] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    baseline: str = "zero"

    def measure(self, judged: Judged) -> Measured:
        """Compute the target at the input and the baseline."""
        probe, x = same_question(judged), judged.x
        generator = torch.Generator().manual_seed(judged.seed)
        with probe.at(x):
            start = baseline_image(self.baseline, probe, x, generator)
            change = (probe.score(x) - probe.score(start)).double().cpu()
        total = judged.values.double().flatten(1).sum(dim=1)
        gap = torch.where(change == 0, NAN, (total - change).abs() / change.abs())
        details = {"sum": total.tolist(), "change": change.tolist()}
        return Measured(gap, details=details, forwards=2)


@dataclass(frozen=True)
class DummyInput(Metric):
    r"""Fraction of the evidence on voxels that the target does not depend on (arXiv:1703.01365).

    Boxes of the image are filled ``draws`` times with values drawn from their modality. Where the
    target never changes, by more than rounding, the box is a dummy, and its evidence should be
    zero. Lower is better; 0 is the axiom. Undefined if no box is a dummy.

    Parameters
    ----------
    size
        Edge of a box in voxels.
    draws
        How often each box is filled.
    """

    name: ClassVar[str] = "dummy_input"
    title: ClassVar[str] = "Evidence on dummy inputs"
    family: ClassVar[str] = "axioms"
    citation: ClassVar[str] = "arXiv:1703.01365"
    higher_is_better: ClassVar[bool | None] = False

    size: int = 16
    draws: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.size >= 1, self.name, f"size is {self.size}, expected at least 1")
        require(self.draws >= 1, self.name, f"draws is {self.draws}, expected at least 1")

    def measure(self, judged: Judged) -> Measured:
        """Fill each box, and look whether the target changes."""
        probe, x = same_question(judged), judged.x
        generator = torch.Generator().manual_seed(judged.seed)
        places = boxes(x.shape[2:], self.size)
        dummy = torch.zeros((len(x), len(places)), dtype=torch.bool)
        with probe.at(x):
            score = probe.score(x)
            least = _ROUNDING * score.abs().clamp(min=1)
            for number, place in enumerate(places):
                still = torch.ones(len(x), dtype=torch.bool, device=score.device)
                for _ in range(self.draws):
                    changed = _filled(x, box_slices(place), generator)
                    still &= (probe.score(changed) - score).abs() <= least
                dummy[:, number] = still.cpu()
        inside = torch.stack(
            [
                judged.importance[(slice(None), *box_slices(place))].flatten(1).sum(dim=1)
                for place in places
            ],
            dim=1,
        )
        total = inside.sum(dim=1)
        share = (inside * dummy).sum(dim=1) / total
        count = dummy.sum(dim=1)
        found = torch.where(count == 0, NAN, share)
        notes = ("no box is a dummy: the target depends on the whole image",)
        return Measured(
            found, details={"boxes": len(places), "dummies": count.tolist()},
            notes=notes if bool((count == 0).any()) else (),
            forwards=1 + len(places) * self.draws,
        )  # fmt: skip


@dataclass(frozen=True)
class Linearity(Metric):
    r"""Deviation of the map of a difference of targets from the difference of their maps.

    .. math:: \frac{|\Phi(S - S') - (\Phi(S) - \Phi(S'))|}{|\Phi(S)| + |\Phi(S')|}

    (linearity, arXiv:1703.01365), with another class as ``S'``. 0 is the axiom. Undefined for a
    network of one class.
    """

    name: ClassVar[str] = "linearity"
    title: ClassVar[str] = "Deviation from linearity"
    family: ClassVar[str] = "axioms"
    citation: ClassVar[str] = "arXiv:1703.01365"
    higher_is_better: ClassVar[bool | None] = False

    def measure(self, judged: Judged) -> Measured:
        """Compute the maps of another class and of the contrast."""
        probe, number = other_class(judged)
        if probe is None:
            note = "the network has one class, so there is no other target"
            return Measured([NAN] * len(judged.x), notes=(note,))
        with probe.at(judged.x):
            against = probe.target
        own = same_question(judged)
        with own.at(judged.x):
            bound = own.target
        name = f"{bound.description['name']} vs {number}"
        contrast = replace(bound, against=against, description=bound.description | {"name": name})
        both = probe.for_network(probe.network, Fixed(contrast))
        first, second = map_again(judged, own), map_again(judged, probe)
        difference = map_again(judged, both) - (first - second)
        scale = _norm(first) + _norm(second)
        return Measured(_norm(difference) / scale, details={"class": number})


@dataclass(frozen=True)
class ImplementationInvariance(Metric):
    r"""Change of the map when the network is written in another way (arXiv:1703.01365).

    .. math:: x = \mathrm{relu}(x + c) - c

    for values above ``−c``: with this in front, the network computes the same function with one
    rectifier more. 0 is the axiom; guided backpropagation and deconvolution, which change what a
    rectifier passes back, break it.
    """

    name: ClassVar[str] = "implementation_invariance"
    title: ClassVar[str] = "Deviation from implementation invariance"
    family: ClassVar[str] = "axioms"
    citation: ClassVar[str] = "arXiv:1703.01365"
    higher_is_better: ClassVar[bool | None] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    def measure(self, judged: Judged) -> Measured:
        """Compute the map of the network with a rectifier in front."""
        network = copy.deepcopy(judged.asked().network)
        range_ = channel_range(judged.x).amax(dim=0)
        low = judged.x.amin(dim=tuple(i for i in range(judged.x.dim()) if i != 1))
        # Far enough for paths and noise around the input to stay above.
        offset = per_sample((10 * range_ - low).clamp(min=1).unsqueeze(0), judged.x)
        handle = network.register_forward_pre_hook(_rectified(offset))
        try:
            values = map_again(judged, same_question(judged, network))
        finally:
            handle.remove()
        plain = map_again(judged, same_question(judged))
        return Measured(_norm(values - plain) / _norm(plain))


_ROUNDING = 1e-5
"""Change of a target of size one that is rounding in single precision."""


def _rectified(offset: Tensor) -> Any:
    """Return a hook that writes the input as a rectifier's result."""

    def hook(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, *rest = given
        shift = offset.to(x)
        return (torch.relu(x + shift) - shift, *rest)

    return hook


def _filled(x: Tensor, place: tuple[slice, ...], generator: torch.Generator) -> Tensor:
    """Return images with a box of values drawn from each sample's modalities."""
    changed = x.clone()
    at = (slice(None), slice(None), *place)
    part = changed[at]
    flat = x.flatten(2)
    n = part[0, 0].numel()
    index = torch.randint(flat.shape[2], (*flat.shape[:2], n), generator=generator).to(x.device)
    changed[at] = flat.gather(2, index).reshape(part.shape)
    return changed


def _norm(values: Tensor) -> Tensor:
    found: Tensor = values.double().flatten(1).norm(dim=1)
    return found
