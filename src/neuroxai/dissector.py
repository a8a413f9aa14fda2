"""The hall where a cohort, a network and concepts meet: what has each filter learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroxai.core.box import bounding_box
from neuroxai.core.errors import CaseError
from neuroxai.core.spatial import spatial_shape
from neuroxai.core.target import Class, Outputs, Region, Target
from neuroxai.core.units import Units
from neuroxai.core.untouched import untouched
from neuroxai.data.brats import read_case
from neuroxai.data.case import Case
from neuroxai.data.concepts import concept_masks
from neuroxai.data.preprocessing import Prepared
from neuroxai.data.tissues import tissues_of
from neuroxai.explainer import choose_device, describe_model, outputs_of, prepare
from neuroxai.inspection.ablation import switched_off
from neuroxai.inspection.control import randomized
from neuroxai.inspection.dissection import BAU, Dissection, Match
from neuroxai.models.checkpoint import Model
from neuroxai.prediction import read_output

Own = Callable[[Case], Mapping[str, NDArray[np.generic]]]
"""A user's own masks of a case, by name."""

Report = Callable[[str, float, float], None]

MARGIN = 4
"""Voxels around the brain that still count."""

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
        The filter, and the concept it answers to best of all.
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
        What switching the best filter of each concept off does.
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

    def best_concept(self, layer: str, number: int) -> Finding:
        """Return the concept that a filter answers to best."""
        return self._best[layer, number]

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
    others: int = 3,
    seed: int = 0,
    device: str = "auto",
    report: Report | None = None,
) -> Dissected:
    """Dissect a network over a cohort, beside a control that has learned nothing.

    The cases pass one at a time and are not kept. Voxels count inside the box around the brain.

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
    studies = _Studies(model, network, own if own is not None else _none, tissues, device)
    calibration = [studies.open(each) for each in cases[:CALIBRATION]]
    concepts = tuple(calibration[0].masks)
    with untouched(network):
        control = randomized(network, [study.x for study in calibration], seed=seed)
    del calibration
    learned, chance = Dissection(network, concepts), Dissection(control, concepts)
    names: list[str] = []
    sources: dict[str, None] = {}
    for number, each in enumerate(cases):
        tell("Dissecting", number, len(cases))
        study = studies.open(each)
        masks = _same_concepts(study, concepts)
        learned.add(study.x, masks, study.within)
        chance.add(study.x, masks, study.within)
        names.append(study.case.name)
        sources |= dict.fromkeys([study.tissues_from] if study.tissues_from else [])
    tell("Dissecting", len(cases), len(cases))
    explicit = {*model.card.classes, *model.card.regions} if model.card.regions else set()
    found = Dissected(
        units=learned.units,
        findings=tuple(_findings(learned, chance, explicit)),
        shares={concept: learned.share(concept) for concept in concepts},
        effects=(),
        cases=tuple(names),
        model=describe_model(model),
        seed=seed,
        tissues_from=tuple(sources),
    )
    if not causal:
        return found
    effects = _effects(found, studies, cases[:causal], others, tell)
    return replace(found, effects=tuple(effects))


@dataclass(frozen=True, eq=False)
class _Study:
    """One case, ready for a network."""

    case: Case
    prepared: Prepared
    x: Tensor
    masks: dict[str, Tensor]
    within: Tensor
    tissues_from: str | None


def _none(case: Case) -> dict[str, NDArray[np.bool_]]:
    """Know no masks of a case."""
    return {}


class _Studies:
    """Opens cases the same way every time."""

    def __init__(
        self, model: Model, network: nn.Module, own: Own, tissues: bool, device: str
    ) -> None:
        self.model, self.network = model, network
        self.outputs: Outputs = outputs_of(model)
        self._own, self._tissues, self._device = own, tissues, device

    def open(self, each: Case | Path) -> _Study:
        case = each if isinstance(each, Case) else self._read(each)
        prepared = prepare(self.model, case, None, self._device)
        tissues, source = tissues_of(case) if self._tissues else (None, None)
        known = concept_masks(case, tissues=tissues, own=self._own(case))
        masks = {
            name: torch.from_numpy(prepared.placement.to_network(mask.astype(np.uint8)) > 0)
            for name, mask in known.items()
        }
        parameter = next(self.network.parameters())
        x = prepared.x.to(parameter.device)
        return _Study(case, prepared, x, masks, _around(masks["brain"]), source)

    def _read(self, folder: Path) -> Case:
        return read_case(folder, modalities=tuple(dict.fromkeys(self.model.card.modalities)))


def _around(brain: Tensor) -> Tensor:
    """Return the box that holds the brain, and a margin."""
    within = torch.zeros_like(brain)
    within[bounding_box(brain.numpy(), MARGIN)] = True
    return within


def _same_concepts(study: _Study, concepts: Sequence[str]) -> dict[str, Tensor]:
    """Return the masks of the concepts; a cavity that a case has not is empty, others must be."""
    masks = dict(study.masks)
    for name in concepts:
        if name in masks:
            continue
        if name != "RC":
            raise CaseError(
                f"{study.case.name}: the concept {name!r} is not known of this case, but of the "
                "first; dissect cases that know the same concepts"
            )
        masks[name] = torch.zeros_like(masks["brain"])
    return {name: masks[name] for name in concepts}


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
    found: Dissected, studies: _Studies, cases: Sequence[Case | Path], others: int, tell: Report
) -> Iterator[Effect]:
    """Switch the best filter of every concept off, and others of its layer."""
    generator = np.random.default_rng(found.seed)
    chosen: dict[str, tuple[str, int, list[int]]] = {}
    for concept in found.concepts:
        match = found.best_filter(concept).match
        count = next(unit.count for unit in found.units if unit.layer == match.layer)
        rest = [number for number in range(count) if number != match.filter]
        picked = generator.permutation(rest)[:others]
        chosen[concept] = (match.layer, match.filter, [int(number) for number in picked])
    wanted = {(layer, k) for layer, one, rest in chosen.values() for k in (one, *rest)}
    changes: dict[tuple[str, int], list[dict[str, float]]] = {key: [] for key in sorted(wanted)}
    for number, each in enumerate(cases):
        tell("Switching filters off", number, len(cases))
        study = studies.open(each)
        plain = _answer(studies, study, found.units, {})
        for layer, k in changes:
            answer = _answer(studies, study, found.units, {layer: [k]})
            changes[layer, k].append({key: answer[key] - plain[key] for key in plain})
    tell("Switching filters off", len(cases), len(cases))
    for concept, (layer, one, rest) in chosen.items():
        mine = _mean(changes[layer, one])
        theirs = _mean([row for k in rest for row in changes[layer, k]])
        yield Effect(
            layer, one, concept, _part(mine, "dice"), _part(mine, "score"),
            _part(theirs, "dice"), _part(theirs, "score"), len(cases),
        )  # fmt: skip


def _answer(
    studies: _Studies,
    study: _Study,
    units: Sequence[Units],
    filters: Mapping[str, Sequence[int]],
) -> dict[str, float]:
    """Return Dice per region and the value of each target, with filters switched off."""
    network, outputs = studies.network, studies.outputs
    with untouched(network), torch.no_grad(), switched_off(network, units, filters):
        output = outputs.select(network(study.x.clone()))
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
