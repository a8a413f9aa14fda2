"""Metrics of the maps of one target, beside those of trivial maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from neuroxai.core.errors import LayerError, MethodError, MetricError, NoMapError, suggestion
from neuroxai.core.probe.probe import Probe
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.methods.base import Method
from neuroxai.metrics.base import Metric, MetricValue
from neuroxai.metrics.judged import Judged
from neuroxai.metrics.trivial import trivial_maps
from neuroxai.workflows.control import Control

TRIVIAL_FAMILIES = ("faithfulness", "localization", "complexity")
"""Families that are measured of trivial maps too; the others compute a map again."""


@dataclass(frozen=True)
class Facts:
    """What is known beside the maps, for metrics that need it.

    Attributes
    ----------
    mask
        ``(B, *S)`` bool, where the evidence is known to be.
    brain
        ``(B, *S)`` bool.
    spacing
        Edges of a voxel in mm.
    modalities
        Names of the channels.
    importances
        ``(B, C)``, for example modality Shapley values.
    networks
        Networks trained from other seeds.
    """

    mask: Tensor | None = None
    brain: Tensor | None = None
    spacing: tuple[float, ...] | None = None
    modalities: tuple[str, ...] = ()
    importances: Tensor | None = None
    networks: tuple[nn.Module, ...] = ()


@dataclass(frozen=True, eq=False)
class Measurements(Mapping[str, Mapping[str, MetricValue]]):
    """Metrics of several maps of one target: map name to metric name to value.

    Attributes
    ----------
    target
        Description of the target.
    found
        Map name to metric name to value.
    titles
        Map name to its title.
    trivial
        Names of the trivial maps.
    refused
        Map name to the reason why it could not be computed.
    missing
        Metric name to the reason why it was not measured.
    """

    target: Mapping[str, Any]
    found: Mapping[str, Mapping[str, MetricValue]]
    titles: Mapping[str, str]
    trivial: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Mapping[str, MetricValue]:
        if name not in self.found:
            raise NoMapError(f"no map {name!r} was measured: {suggestion(name, self.found)}")
        return self.found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def __repr__(self) -> str:
        metrics = {name for row in self.found.values() for name in row}
        return (
            f"<Measurements of {self.target['name']}: {len(self.found)} maps, {len(metrics)} "
            f"metrics. {NOT_FOR_CLINICAL_USE}>"
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per map, metric and sample, ready for a table."""
        return [
            {
                "target": self.target["name"], "map": name, "title": self.titles[name],
                "trivial": name in self.trivial, "metric": metric, "sample": sample,
                "value": value, "chance": None if found.chance is None else found.chance[sample],
                "notes": "; ".join(found.notes),
            }
            for name, row in self.found.items()
            for metric, found in row.items()
            for sample, value in enumerate(found.values)
        ]  # fmt: skip

    def beaten_by(self, name: str, metric: Metric | type[Metric]) -> list[str]:
        """Return the trivial maps that reach a value as good as a map's, in the mean of samples."""
        own = mean_value(self[name].get(metric.name))
        if own is None or metric.higher_is_better is None:
            return []
        sign = 1 if metric.higher_is_better else -1
        found = []
        for other in self.trivial:
            value = mean_value(self[other].get(metric.name))
            if other != name and value is not None and sign * value >= sign * own:
                found.append(other)
        return found

    def describe(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return {
            "target": dict(self.target),
            "maps": {
                name: {metric: found.describe() for metric, found in row.items()}
                for name, row in self.found.items()
            },
            "trivial": list(self.trivial),
            "refused": dict(self.refused),
            "not_measured": dict(self.missing),
            "use": NOT_FOR_CLINICAL_USE,
        }


def mean_value(found: MetricValue | None) -> float | None:
    """Return the mean over samples; None if a sample's value is undefined."""
    if found is None or None in found.values:
        return None
    known = [value for value in found.values if value is not None]
    return sum(known) / len(known)


@dataclass(frozen=True)
class Measuring:
    """Measures the maps of one target.

    Attributes
    ----------
    methods
        Methods whose maps are measured.
    maps
        Maps of other tools, by name: ``(B, C, *S)`` or ``(B, 1, *S)``.
    metrics
        What is measured.
    facts
        What is known beside the maps.
    trivial
        Whether trivial maps are measured too.
    seed
        Seed of everything drawn.
    """

    methods: Sequence[Method]
    maps: Mapping[str, Tensor]
    metrics: Sequence[Metric]
    facts: Facts
    trivial: bool = True
    seed: int = 0

    def run(self, probe: Probe, x: Tensor, control: Control) -> Measurements:
        """Compute the maps that are not given, and measure all.

        Raises
        ------
        MethodError
            If there is no map to measure.
        CancelledError
            If it was cancelled.
        """
        found, refused = self._judged(probe, x, control)
        if not found:
            raise MethodError("; ".join(refused.values()) or "there is no map to measure")
        with probe.at(x):
            description = probe.target.description
            others = self._trivial(probe, x) if self.trivial else {}
        titles = {name: title for name, (title, _) in found.items()}
        values: dict[str, dict[str, MetricValue]] = {}
        missing: dict[str, str] = {}
        rows = {name: judged for name, (_, judged) in found.items()}
        rows |= {name: judged for name, judged in others.items() if name not in rows}
        control.start(len(rows) * len(self.metrics))
        for name, judged in rows.items():
            values[name] = {}
            control.enter(f"metrics of {titles.setdefault(name, name)}")
            for metric in self.metrics:
                control.check()
                if name not in found and metric.family not in TRIVIAL_FAMILIES:
                    continue
                try:
                    values[name][metric.name] = metric(judged)
                except MetricError as error:
                    if name in found:
                        missing[metric.name] = str(error)
                control.advance(1)
        return Measurements(
            description, values, titles, tuple(n for n in rows if n not in found), refused,
            {metric: why for metric, why in missing.items()
             if not any(metric in row for row in values.values())},
        )  # fmt: skip

    def _judged(
        self, probe: Probe, x: Tensor, control: Control
    ) -> tuple[dict[str, tuple[str, Judged]], dict[str, str]]:
        """Return title and map of each method and each given map, and why some have none."""
        found: dict[str, tuple[str, Judged]] = {}
        refused: dict[str, str] = {}
        for method in self.methods:
            control.enter(method.title)
            try:
                explanation = method.explain(probe, x, seed=self.seed)
            except (MethodError, LayerError) as error:
                refused[method.name] = str(error)
                continue
            absolute = explanation.quantity == "gradient"
            judged = self._judge(explanation.values, probe, x, method, absolute=absolute)
            found[method.name] = (method.title, judged)
        for name, values in self.maps.items():
            found[name] = (name, self._judge(values, probe, x))
        return found, refused

    def _trivial(self, probe: Probe, x: Tensor) -> dict[str, Judged]:
        blank = self._judge(torch.zeros_like(x[:, :1]), probe, x)
        maps = trivial_maps(x, blank.domain, self.facts.modalities, self.seed, probe)
        return {name: self._judge(values.cpu(), probe, x) for name, values in maps.items()}

    def _judge(
        self, values: Tensor, probe: Probe, x: Tensor, method: Method | None = None,
        absolute: bool = False,
    ) -> Judged:  # fmt: skip
        facts = self.facts
        return Judged(
            values, x, probe, facts.mask, facts.brain, method, facts.spacing,
            "absolute" if absolute else "positive", facts.importances, facts.networks, self.seed,
        )  # fmt: skip
