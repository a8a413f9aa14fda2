"""The hall where a cohort, a network and concepts meet: what has each filter learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from neuroxai.core.target.target import Class, Region, Target
from neuroxai.data.case import Case
from neuroxai.inspection.ablation import ablate_filters
from neuroxai.inspection.control import shuffle_weights
from neuroxai.inspection.dissection import BAU, Dissection, Match
from neuroxai.models.model import Model
from neuroxai.patient.prediction import read_output
from neuroxai.workflows.concept_study import ConceptStudies, ConceptStudy, Own, same_concepts
from neuroxai.workflows.explain import choose_device, describe_model
from neuroxai.workflows.network_fault import network_faults

CALIBRATION = 3
"""Cases on which the control's norms measure their statistics."""


@dataclass(frozen=True)
class Finding:
    """One filter with one concept.

    Attributes
    ----------
    match
        IoU at the concept's own share of the voxels.
    bau
        IoU at the quantile 0.005 of Bau et al. 2017.
    control
        IoU of the same filter in the network with shuffled weights.
    control_best
        The best IoU that any filter of the same layer has there: what choosing the best of a
        layer yields by chance.
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
    """What switching one filter off does, on average over cases.

    Attributes
    ----------
    layer, filter, concept
        The filter, and the concept it was chosen for.
    dice
        Region to the change of Dice with the truth; empty for a classifier or without truth.
    score
        Target's word to the change of its value.
    control_dice, control_score
        The same, on average over other filters of the same layer.
    cases
        How many cases were looked at.
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
    """What a network's filters have learned.

    Attributes
    ----------
    units
        The filters' layers, in the order data flows.
    findings
        Every filter with every concept.
    shares
        Concept to its share of the counted voxels.
    effects
        What switching the best filters of each concept off does, the best first.
    cases
        Names of the cases.
    model
        Name and hashes of the network.
    seed
        What the control and the choice of other filters were drawn with.
    tissues_from
        Where CSF, GM and WM come from; empty where they are not known.
    """

    units: tuple[Units, ...]
    findings: tuple[Finding, ...]
    shares: Mapping[str, float]
    effects: tuple[Effect, ...]
    cases: tuple[str, ...]
    model: Mapping[str, str]
    seed: int = 0
    tissues_from: tuple[str, ...] = ()

    @property
    def concepts(self) -> tuple[str, ...]:
        """The concepts that occurred, implicit ones first."""
        explicit = {finding.match.concept: finding.explicit for finding in self.findings}
        return tuple(sorted(explicit, key=lambda concept: explicit[concept]))

    def best_filter(self, concept: str) -> Finding:
        """Return the filter that answers to a concept best."""
        return self._best[concept]

    def best_filters(self, concept: str, count: int) -> list[Finding]:
        """Return the ``count`` filters that answer to a concept best, the best first."""
        found = (finding for finding in self.findings if finding.match.concept == concept)
        return nlargest(count, found, key=lambda finding: finding.match.iou)

    def best_concept(self, layer: str, number: int) -> Finding:
        """Return the concept that a filter answers to best."""
        return self._best[layer, number]

    def best_effect(self, concept: str) -> Effect | None:
        """Return what switching the best filter of a concept off does, None if it was not."""
        return next((effect for effect in self.effects if effect.concept == concept), None)

    @cached_property
    def _best(self) -> dict[str | tuple[str, int], Finding]:
        """The best finding of every concept, and of every filter; of equals the first."""
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
    own: Own | None = None,
    tissues: bool = True,
    causal: int = 0,
    best: int = 1,
    others: int = 3,
    seed: int = 0,
    device: str = "auto",
    report: Report | None = None,
) -> Dissected:
    """Dissect a network over a cohort, beside a control that has learned nothing.

    The first three cases are kept, as they calibrate the control; the others pass one at a time.
    Voxels count inside the box around the brain.

    Parameters
    ----------
    model
        A loaded checkpoint that takes volumes.
    cases
        Studies, or their folders. All must know the concepts of the first.
    own
        Gives a user's own masks of a case; :class:`~neuroxai.data.mask_files.MaskFiles` reads them.
    tissues
        Whether CSF, GM and WM are among the concepts; where they are not known they are segmented
        on T1.
    causal
        On how many of the cases, the first ones, to switch filters off; 0 for none.
    best
        How many of the best filters of each concept are switched off, one at a time.
    others
        How many other filters of the same layer are switched off for comparison.
    seed
        Of the control's weights, and of the choice of other filters.
    device
        ``auto``, ``cpu``, ``cuda``.
    report
        Told of progress: the stage, how much of it is done, how much there is.

    Raises
    ------
    NeuroXAIError
        In one sentence, if something does not fit.
    """
    if not cases:
        raise CaseError("dissection needs at least one case, got none")
    tell = report or (lambda stage, done, total: None)
    network = model.network.to(choose_device(device))
    studies = ConceptStudies(model, network, own, tissues, device)
    first = [studies.open(each) for each in cases[:CALIBRATION]]
    concepts = tuple(first[0].masks)
    with network_faults(model, first[0].x), untouched(network):
        control = shuffle_weights(network, [study.x for study in first], seed=seed)
    learned, chance = Dissection(network, concepts), Dissection(control, concepts)
    names: list[str] = []
    sources: dict[str, None] = {}
    for number, study in enumerate(studies.each(cases, first)):
        tell("Dissecting", number, len(cases))
        masks = same_concepts(study, concepts)
        with network_faults(model, study.x):
            learned.add(study.x, masks, study.around)
            chance.add(study.x, masks, study.around)
        names.append(study.case.name)
        sources |= dict.fromkeys([study.tissues_from] if study.tissues_from else [])
    tell("Dissecting", len(cases), len(cases))
    explicit = {*model.card.classes, *model.card.regions} if model.card.regions else set()
    found = Dissected(
        units=learned.units,
        findings=tuple(_findings(learned, chance, explicit)),
        shares={concept: learned.fraction(concept) for concept in concepts},
        effects=(),
        cases=tuple(names),
        model=describe_model(model),
        seed=seed,
        tissues_from=tuple(sources),
    )
    if not causal:
        return found
    effects = _effects(found, studies, cases[:causal], first, (best, others), tell)
    return replace(found, effects=tuple(effects))


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
    tell: Report,
) -> Iterator[Effect]:
    """Switch the best filters of every concept off, and others of their layers."""
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
    wanted = {(match.layer, k) for match, rest in chosen for k in (match.filter, *rest)}
    changes: dict[tuple[str, int], list[dict[str, float]]] = {key: [] for key in sorted(wanted)}
    for number, study in enumerate(studies.each(cases, first)):
        tell("Switching filters off", number, len(cases))
        plain = _answer(studies, study, found.units, {})
        for layer, k in changes:
            answer = _answer(studies, study, found.units, {layer: [k]})
            changes[layer, k].append({key: answer[key] - plain[key] for key in plain})
    tell("Switching filters off", len(cases), len(cases))
    for match, rest in chosen:
        mine = _mean(changes[match.layer, match.filter])
        theirs = _mean([row for k in rest for row in changes[match.layer, k]])
        yield Effect(
            match.layer, match.filter, match.concept, _part(mine, "dice"), _part(mine, "score"),
            _part(theirs, "dice"), _part(theirs, "score"), len(cases),
        )  # fmt: skip


def _answer(
    studies: ConceptStudies,
    study: ConceptStudy,
    units: Sequence[Units],
    filters: Mapping[str, Sequence[int]],
) -> dict[str, float]:
    """Return Dice per region and the value of each target, with filters switched off."""
    network, outputs = studies.network, studies.outputs

    def passed(x: Tensor) -> Tensor:
        with ablate_filters(network, units, filters):
            return outputs.answer(network, x.clone())

    with untouched(network), torch.no_grad():
        output = run_fast(network, study.x, passed)
    targets: list[Target] = (
        [Region(name) for name in outputs.regions]
        if outputs.regions
        else [Class(name) for name in outputs.names]
    )
    answer = {
        f"score {target.name}": float(target.bind(outputs, output).score(output)[0])
        for target in targets
    }
    if outputs.regions and len(spatial_shape(output)):
        prediction = read_output(output, outputs, study.case, study.prepared.placement)
        answer |= {f"dice {name}": value for name, value in prediction.dice().items()}
    return answer


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    if not rows:
        return {}
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def _part(row: Mapping[str, float], kind: str) -> dict[str, float]:
    return {
        key.partition(" ")[2]: value for key, value in row.items() if key.startswith(f"{kind} ")
    }


__all__ = ["Dissected", "Effect", "Finding", "dissect"]
