"""Findings in words: what a network predicted, and what the maps of each target show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from neuroxai.data.case import Case
from neuroxai.data.case_quality import CaseQuality
from neuroxai.inspection.chance import NOT_ABOVE_CHANCE, describe_reference
from neuroxai.inspection.modality_shares import ModalityShare
from neuroxai.models.card import Card
from neuroxai.patient.prediction import Prediction
from neuroxai.reports.explain import (
    CaseReport,
    format_place,
    format_score,
)
from neuroxai.reports.explain_summary import MapSummary, TargetSummary

_MOST_CASES = 10
"""Cases of a cohort whose alarms are printed; the summary has all."""

_SYNTHETIC = "synthetic"
"""First word of ``training.data.source`` in the card of a network trained on phantoms."""


def describe_network(card: Card) -> str:
    """Return the network's name and, if it was trained on phantoms, that it never saw a patient.

    Examples
    --------
    >>> from neuroxai.models.loading import load_model
    >>> describe_network(load_model("deepseg-phantom").card)
    'Network: deepseg-phantom. It was trained on phantoms and has never seen a patient.'
    """
    data = card.training.get("data")
    source = str(data.get("source", "")) if isinstance(data, Mapping) else ""
    phantoms = source.startswith(_SYNTHETIC)
    warning = " It was trained on phantoms and has never seen a patient." if phantoms else ""
    return f"Network: {card.name}.{warning}"


def describe_alarms(case: Case) -> list[str]:
    """Return the alarms of a case's check, one line each; none if it was not checked."""
    return [] if case.quality is None else case.quality.alarm_lines()


def describe_cohort_alarms(quality: Mapping[str, CaseQuality]) -> list[str]:
    """Return the alarms of the first cases with one, one line each, and how many others have."""
    alarmed = {name: found for name, found in quality.items() if found.alarms}
    shown = list(alarmed.items())[:_MOST_CASES]
    lines = [f"ALARM: {name}: {alarm}." for name, found in shown for alarm in found.alarms]
    if len(alarmed) > len(shown):
        lines.append(f"ALARM: {len(alarmed) - len(shown)} more cases have alarms, see the summary.")
    return lines


def describe_prediction(prediction: Prediction) -> list[str]:
    """Return what a network predicted, one sentence each for all volumes and all probabilities."""
    name, sentences = prediction.case.name, []
    if prediction.probabilities:
        chances = (f"{each} {chance:.1%}" for each, chance in prediction.probabilities.items())
        truth = f"; the truth is {prediction.case.label}" if prediction.case.label else ""
        sentences.append(f"Prediction for {name}: {', '.join(chances)}{truth}.")
    volumes, dice = prediction.volumes_ml(), prediction.dice()
    if volumes:
        each = (_format_volume(region, ml, dice.get(region)) for region, ml in volumes.items())
        sentences.append(f"Prediction for {name}: {', '.join(each)}.")
    return sentences


def describe_target(
    target: str, summary: TargetSummary, prediction: Prediction | None
) -> list[str]:
    """Return the target's value, and one sentence per method."""
    place = format_place(summary.target)
    value = format_score(summary.target, prediction).removeprefix("target's ")
    lines = [f"Target {target}: {value} {summary.score:.4g}{place and f', {place}'}."]
    for method, row in summary.methods.items():
        facts = "; ".join(_map_facts(target, row))
        lines.append(f"{target}, {method}: {facts}.")
    return lines


def findings(report: CaseReport, card: Card) -> list[str]:
    """Return the findings of an explained case, most important first.

    Parameters
    ----------
    report
        The explained case.
    card
        Description of the network.
    """
    prediction = report.prediction
    lines = [] if report.case is None else describe_alarms(report.case)
    lines.append(describe_network(card))
    if prediction is not None:
        lines += describe_prediction(prediction)
    for name, target in report.targets.items():
        lines += describe_target(name, target, prediction)
    return lines


def _format_volume(region: str, ml: float, dice: float | None) -> str:
    # The Dice of two empty regions is 1 by convention, which would look like a success.
    if dice is None or (dice == 1 and ml == 0):
        return f"{region} {ml:.1f} ml"
    return f"{region} {ml:.1f} ml (Dice with the truth {dice:.3f})"


def _map_facts(target: str, row: MapSummary) -> Iterator[str]:
    """Yield which modality carries a map, where it is, and how exact it is."""
    if row.evidence is not None and row.evidence.all is None:
        yield "the map is zero"
        return
    if row.evidence is None:
        yield "the map has NaN or infinite values"
        return
    if row.chance is not None and not row.chance.above:
        yield f"{NOT_ABOVE_CHANCE}: {row.chance.reason()}"
    if row.modalities:
        yield _format_modalities(target, row.modalities)
    yield from _format_places(row)
    if row.location is not None:
        side = row.location.side
        share = max(row.location.right, 1 - row.location.right)
        where = side if side == "both sides" else f"the {side} ({share:.0%})"
        yield f"in the brain it is on {where}, centered {row.location}"
    yield from _format_precision(row)


def _format_modalities(target: str, shares: Mapping[str, ModalityShare]) -> str:
    """Return the shares of the two strongest modalities, absolute and signed."""
    each = [
        f"{name} carries {share.absolute:.0%} of the map (net {share.signed:+.0%}, "
        f"{'for' if share.signed >= 0 else 'against'} {target})"
        for name, share in list(shares.items())[:2]
    ]
    return ", ".join(each)


def _format_places(row: MapSummary) -> Iterator[str]:
    """Yield the share of the map where the target is averaged, or in the tumor."""
    if row.chance is not None:
        if row.chance.above:  # else the reason of the mark has the figures
            level = f"{row.chance.level:.1%}, {describe_reference(row.chance.reference)}"
            held = f"{row.chance.share:.0%} of the map is where the target is averaged"
            yield f"{held} (chance level {level})"
        return
    mass = row.evidence
    if mass is not None and mass.all is not None and "WT" in mass.all:
        volume = f"{mass.volume['WT']:.1%} of the volume"
        yield f"{mass.all['WT']:.0%} of the map is in the whole tumor ({volume})"


def _format_precision(row: MapSummary) -> Iterator[str]:
    """Yield the figures that state how exact a map is."""
    error: Any = row.diagnostics.get("relative_standard_error")
    if row.completeness_gap is not None:
        yield f"completeness gap {row.completeness_gap:.1%}"
    if error is not None:
        yield f"relative standard error {float(error):.1%}"
