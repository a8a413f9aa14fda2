"""The base class of metrics, and what one returns."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from neuroxai.core.errors import MetricError
from neuroxai.methods.parameters import check_parameter, parameter_types
from neuroxai.metrics.judged import Judged

FAMILIES = (
    "faithfulness", "localization", "multimodal", "robustness", "randomization", "complexity",
    "axioms",
)  # fmt: skip
"""Families of metrics, which are also the modules that define them."""


OWN = "defined here"
"""Citation of a metric that this project defines."""


@dataclass(frozen=True)
class MetricValue:
    """A metric of a map.

    Attributes
    ----------
    metric, parameters
        The metric's name and parameters.
    values
        One value per sample; None where it is undefined, for the reason in :attr:`notes`.
    chance
        The value that an uninformative map is expected to reach, per sample; None if there is none.
    details
        Curves, counts and other findings, ready for JSON.
    notes
        Sentences for the reader of the values.
    forwards
        Forward passes, per sample.
    """

    metric: str
    parameters: Mapping[str, Any]
    values: tuple[float | None, ...]
    chance: tuple[float | None, ...] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    forwards: int = 0

    def describe(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Measured:
    """What :meth:`Metric.measure` found: see :class:`MetricValue`."""

    values: Tensor | Sequence[float]
    chance: Tensor | Sequence[float] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    forwards: int = 0


@dataclass(frozen=True)
class Metric(ABC):
    """A metric of a map: a frozen dataclass whose fields are its parameters.

    A subclass implements :meth:`measure`. This class checks the parameters and turns what is not
    finite into an undefined value with a note.
    """

    name: ClassVar[str]
    """The name on the command line and in the table ``METRICS``."""
    title: ClassVar[str]
    """The name in figures and reports."""
    family: ClassVar[str]
    """One of :data:`FAMILIES`."""
    citation: ClassVar[str]
    """DOI or arXiv number."""
    higher_is_better: ClassVar[bool | None] = True
    """Whether a better map has a higher value; None if the metric describes and does not rank."""
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    """Least and largest value."""
    unit: ClassVar[str] = ""
    """Unit of the value; empty for a number."""

    def __post_init__(self) -> None:
        """Check the types of the parameters; an overriding metric calls this first."""
        for name, types in parameter_types(type(self)).items():
            check_parameter(self.name, name, getattr(self, name), types)

    @abstractmethod
    def measure(self, judged: Judged) -> Measured:
        """Measure a map; NaN where the metric is undefined."""

    def __call__(self, judged: Judged) -> MetricValue:
        """Return the metric of a map.

        Raises
        ------
        MetricError
            If what the metric needs is not given.
        """
        found = self.measure(judged)
        values = _finite(found.values)
        notes = found.notes
        if None in values and not notes:
            notes = ("the metric is undefined for a map without evidence",)
        return MetricValue(
            self.name, self.parameters(), values,
            None if found.chance is None else _finite(found.chance),
            found.details, notes, found.forwards,
        )  # fmt: skip

    def parameters(self) -> dict[str, Any]:
        """Return the parameters, ready for JSON."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


def _finite(values: Tensor | Sequence[float]) -> tuple[float | None, ...]:
    numbers = values.tolist() if isinstance(values, Tensor) else values
    return tuple(float(v) if math.isfinite(v) else None for v in numbers)


def require(condition: bool, metric: str, sentence: str) -> None:
    """Raise unless a condition on a parameter holds."""
    if not condition:
        raise MetricError(f"{metric}: {sentence}")
