"""Network dissection: the concepts that each filter of a network responds to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from heapq import nlargest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neuroxai.core.engine.fast_path import run_fast
from neuroxai.core.engine.untouched import untouched
from neuroxai.core.errors import CaseError
from neuroxai.core.layers.units import Units
from neuroxai.core.progress import Report
from neuroxai.core.spatial import spatial_shape
from neuroxai.core.target.bound_target import BoundTarget
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Class, Region, Target
from neuroxai.data.case import Case
from neuroxai.inspection.ablation import ablate_filters
from neuroxai.inspection.control import shuffle_weights
from neuroxai.inspection.dissection import BAU, Dissection, Match
from neuroxai.models.model import Model
from neuroxai.quality import CaseQuality, checked
from neuroxai.workflows.concept_study import (
    ConceptStudies,
    ConceptStudy,
    UserMasks,
    same_concepts,
)
from neuroxai.workflows.device import choose_device, on_device
from neuroxai.workflows.network_fault import network_faults
from neuroxai.workflows.preparation import describe_model
from neuroxai.workflows.question import restrict_by_default

CALIBRATION = 3
"""Cases for the statistics of the control's norms; three are enough and fit in memory."""


@dataclass(frozen=True)
class Finding:
    """The agreement of one filter with one concept.

    Attributes
    ----------
    match
        IoU at the concept's share of the voxels.
    bau
        IoU at the quantile 0.005 of Bau et al. 2017.
    control
        IoU of the same filter in the network with shuffled weights.
    control_best
        Best IoU of any filter of the same layer in the network with shuffled weights, which is
        the IoU expected by chance from choosing the best filter of a layer.
    explicit
        Whether the network was trained to label the concept.
    """

    match: Match
    bau: float
    control: float
    control_best: float
    explicit: bool


@dataclass(frozen=True)
class Effect:
    """The effect of ablating one filter, averaged over cases.

    Attributes
    ----------
    layer, filter, concept
        The filter, and the concept it was chosen for.
    dice
        Region name to the change of its Dice; empty for a classifier or without truth.
    score
        Target name to the change of its value: a segmenter's mean in the region that the intact
        network predicts, or over the whole image where it predicts none.
    control_dice, control_score
        The same changes, averaged over other filters of the same layer.
    cases
        Number of cases.
    """

    layer: str
    filter: int
    concept: str
    dice: Mapping[str, float]
    score: Mapping[str, float]
    control_dice: Mapping[str, float]
    control_score: Mapping[str, float]
    cases: int


@dataclass(frozen=True, eq=False)
class Dissected:
    """The result of a dissection.

    Attributes
    ----------
    units
        The filters' layers, in the order of the forward pass.
    findings
        The agreement of every filter with every concept.
    shares
        Concept name to its share of the scored voxels.
    effects
        The effects of ablating the best filters of each concept, the best first.
    cases
        Names of the cases.
    model
        Name and hashes of the network.
    seed
        Seed of the control's weights and of the choice of other filters.
    tissues_from
        Sources of CSF, GM and WM; empty if there are none.
    quality
        Name of each case to the result of its check.
    """

    units: tuple[Units, ...]
    findings: tuple[Finding, ...]
    shares: Mapping[str, float]
    effects: tuple[Effect, ...]
    cases: tuple[str, ...]
    model: Mapping[str, str]
    seed: int = 0
    tissues_from: tuple[str, ...] = ()
    quality: Mapping[str, CaseQuality] = field(default_factory=dict)

    @property
    def concepts(self) -> tuple[str, ...]:
        """The concepts that occurred, implicit ones first."""
        explicit = {finding.match.concept: finding.explicit for finding in self.findings}
        return tuple(sorted(explicit, key=lambda concept: explicit[concept]))

    def best_filter(self, concept: str) -> Finding:
        """Return the filter with the best IoU for a concept."""
        return self._best[concept]

    def best_filters(self, concept: str, count: int) -> list[Finding]:
        """Return the ``count`` filters with the best IoU for a concept, the best first."""
        found = (finding for finding in self.findings if finding.match.concept == concept)
        return nlargest(count, found, key=lambda finding: finding.match.iou)

    def best_concept(self, layer: str, number: int) -> Finding:
        """Return the concept with the best IoU for a filter."""
        return self._best[layer, number]

    def best_effect(self, concept: str) -> Effect | None:
        """Return the effect of ablating a concept's best filter; None if it was not ablated."""
        return next((effect for effect in self.effects if effect.concept == concept), None)

    @cached_property
    def _best(self) -> dict[str | tuple[str, int], Finding]:
        """The best finding of every concept and of every filter; of equal ones the first."""
        best: dict[str | tuple[str, int], Finding] = {}
        for finding in self.findings:
            match = finding.match
            for key in (match.concept, (match.layer, match.filter)):
                if key not in best or match.iou > best[key].match.iou:
                    best[key] = finding
        return best


def dissect(
    model: Model,
    cases: Sequence[Case | Path],
    *,
    user_masks: UserMasks | None = None,
    tissues: bool = True,
    causal: int = 0,
    best: int = 1,
    others: int = 3,
    seed: int = 0,
    device: str = "auto",
    layout: str | None = None,
    resample_to: str | None = None,
    progress: Report | None = None,
    strict: bool = False,
) -> Dissected:
    """Dissect a network on a cohort, with a control network of shuffled weights.

    Voxels are scored in the box around the brain. The first three cases stay in memory for the
    control's statistics; the others are read one at a time.

    Parameters
    ----------
    model
        A loaded model that takes volumes; it is left as it was found.
    cases
        Studies, or their folders. All must have the concepts of the first.
    user_masks
        Returns a user's own masks of a case, as :class:`~neuroxai.data.mask_files.MaskFiles` does.
    tissues
        Whether CSF, GM and WM are among the concepts. If a case has no tissue labels, they are
        segmented on T1.
    causal
        Number of cases on which filters are ablated; 0 for none.
    best
        Number of filters per concept that are ablated, one at a time.
    others
        Number of other filters of the same layer that are ablated for comparison.
    seed
        Seed of the control's weights and of the choice of other filters.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
    layout
        Layout of the cases' label values; detected from the file names by default.
    resample_to
        Modality whose grid files on other grids are resampled to; by default they are refused.
    progress
        Called with the stage, the number of finished cases, and of all cases.
    strict
        Refuse a case with an alarm of :func:`neuroxai.quality.check_case`.

    Raises
    ------
    NeuroXAIError
        If a case does not suit the model or lacks a concept, or ``strict`` and it has an alarm.
    """
    if not cases:
        raise CaseError("dissection needs at least one case, got none")
    report = progress or (lambda stage, done, total: None)
    studies = ConceptStudies(model, user_masks, tissues, device, layout, resample_to)
    with on_device(model.network, choose_device(device)):
        first = [studies.open(each) for each in cases[:CALIBRATION]]
        found = _agreement(studies, cases, first, seed, strict, report)
        if not causal:
            return found
        effects = _effects(found, studies, cases[:causal], first, (best, others), report)
        return replace(found, effects=tuple(effects))


def _agreement(
    studies: ConceptStudies,
    cases: Sequence[Case | Path],
    first: Sequence[ConceptStudy],
    seed: int,
    strict: bool,
    report: Report,
) -> Dissected:
    """Score every filter of the network and of its control with every concept."""
    model = studies.model
    concepts = tuple(first[0].masks)
    with network_faults(model, first[0].x), untouched(model.network):
        control = shuffle_weights(model.network, [study.x for study in first], seed=seed)
    learned, chance = Dissection(model.network, concepts), Dissection(control, concepts)
    names: list[str] = []
    quality: dict[str, CaseQuality] = {}
    sources: dict[str, None] = {}
    for number, study in enumerate(studies.each(cases, first)):
        report("Dissecting", number, len(cases))
        if (found := checked(study.case, strict=strict).quality) is not None:
            quality[study.case.name] = found
        masks = same_concepts(study, concepts)
        with network_faults(model, study.x):
            learned.add(study.x, masks, study.around)
            chance.add(study.x, masks, study.around)
        names.append(study.case.name)
        sources |= dict.fromkeys([study.tissues_from] if study.tissues_from else [])
    report("Dissecting", len(cases), len(cases))
    explicit = {*model.card.classes, *model.card.regions} if model.card.regions else set()
    return Dissected(
        units=learned.units,
        findings=tuple(_findings(learned, chance, explicit)),
        shares={concept: learned.fraction(concept) for concept in concepts},
        effects=(),
        cases=tuple(names),
        model=describe_model(model),
        seed=seed,
        tissues_from=tuple(sources),
        quality=quality,
    )


def _findings(learned: Dissection, chance: Dissection, explicit: set[str]) -> Iterator[Finding]:
    controls = {(m.layer, m.filter, m.concept): m.iou for m in chance.matches()}
    best: dict[tuple[str, str], float] = {}
    for (layer, _, concept), iou in controls.items():
        best[layer, concept] = max(iou, best.get((layer, concept), 0.0))
    for match, bau in zip(learned.matches(), learned.matches(BAU), strict=True):
        yield Finding(
            match, bau.iou,
            controls.get((match.layer, match.filter, match.concept), 0.0),
            best.get((match.layer, match.concept), 0.0),
            match.concept in explicit,
        )  # fmt: skip


def _effects(
    found: Dissected,
    studies: ConceptStudies,
    cases: Sequence[Case | Path],
    first: Sequence[ConceptStudy],
    counts: tuple[int, int],
    report: Report,
) -> Iterator[Effect]:
    """Ablate the best filters of every concept, and other filters of their layers."""
    best, others = counts
    generator = np.random.default_rng(found.seed)
    sizes = {unit.layer: unit.count for unit in found.units}
    chosen: list[tuple[Match, list[int]]] = []
    for concept in found.concepts:
        for finding in found.best_filters(concept, best):
            match = finding.match
            rest = [number for number in range(sizes[match.layer]) if number != match.filter]
            picked = generator.permutation(rest)[:others]
            chosen.append((match, [int(number) for number in picked]))
    ablated = {(match.layer, k) for match, rest in chosen for k in (match.filter, *rest)}
    changes: dict[tuple[str, int], list[_Scores]] = {key: [] for key in sorted(ablated)}
    for number, study in enumerate(studies.each(cases, first)):
        report("Ablating filters", number, len(cases))
        output = _ablated_output(study, found.units, {})
        targets = _bound_targets(study.session.outputs, output)
        intact = _scores(study, targets, output)
        for layer, k in changes:
            ablated_output = _ablated_output(study, found.units, {layer: [k]})
            without = _scores(study, targets, ablated_output)
            changes[layer, k].append(without.minus(intact))
    report("Ablating filters", len(cases), len(cases))
    for match, rest in chosen:
        effect = _Scores.mean(changes[match.layer, match.filter])
        control = _Scores.mean([row for k in rest for row in changes[match.layer, k]])
        yield Effect(
            match.layer, match.filter, match.concept, effect.dice, effect.target,
            control.dice, control.target, len(cases),
        )  # fmt: skip


@dataclass(frozen=True)
class _Scores:
    """The Dice of each region, and the value of each target."""

    dice: Mapping[str, float]
    target: Mapping[str, float]

    def minus(self, other: _Scores) -> _Scores:
        """Return the change from other scores to these."""
        return _Scores(
            {name: self.dice[name] - value for name, value in other.dice.items()},
            {name: self.target[name] - value for name, value in other.target.items()},
        )

    @classmethod
    def mean(cls, rows: Sequence[_Scores]) -> _Scores:
        """Return the mean of scores; empty for none."""
        if not rows:
            return cls({}, {})
        return cls(
            {name: float(np.mean([row.dice[name] for row in rows])) for name in rows[0].dice},
            {name: float(np.mean([row.target[name] for row in rows])) for name in rows[0].target},
        )


def _ablated_output(
    study: ConceptStudy, units: Sequence[Units], filters: Mapping[str, Sequence[int]]
) -> Tensor:
    """Return the output for a case with some filters ablated."""
    network, outputs = study.session.network, study.session.outputs

    def run(x: Tensor) -> Tensor:
        with ablate_filters(network, units, filters):
            return outputs.run(network, x.clone())

    with untouched(network), torch.no_grad():
        return run_fast(network, study.x, run)


def _bound_targets(outputs: Outputs, output: Tensor) -> dict[str, BoundTarget]:
    """Return each region or class, restricted to where the intact network predicts it."""
    targets: list[Target] = (
        [Region(name) for name in outputs.regions]
        if outputs.regions
        else [Class(name) for name in outputs.names]
    )
    return {each.name: each.bind(outputs, output) for each in restrict_by_default(targets)}


def _scores(study: ConceptStudy, targets: Mapping[str, BoundTarget], output: Tensor) -> _Scores:
    """Return the scores of an output for a case."""
    values = {name: float(target.score(output)[0]) for name, target in targets.items()}
    segments = bool(study.session.outputs.regions) and bool(spatial_shape(output))
    return _Scores(study.session.read(output).dice() if segments else {}, values)


__all__ = ["Dissected", "Effect", "Finding", "dissect"]
