"""The table of metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any

from neuroxai.core.errors import MetricError, suggestion
from neuroxai.metrics.base import Metric

_MODULES: Mapping[str, Mapping[str, str]] = {
    "curves": {
        "deletion": "Deletion",
        "insertion": "Insertion",
        "pixel_flipping": "PixelFlipping",
        "road": "ROAD",
        "off_target_leakage": "OffTargetLeakage",
    },
    "faithfulness": {
        "infidelity": "Infidelity",
        "faithfulness_correlation": "FaithfulnessCorrelation",
        "sensitivity_n": "SensitivityN",
        "monotonicity": "Monotonicity",
    },
    "localization": {
        "pointing_game": "PointingGame",
        "relevance_mass_accuracy": "RelevanceMassAccuracy",
        "relevance_rank_accuracy": "RelevanceRankAccuracy",
        "matched_iou": "MatchedIoU",
        "auroc": "AUROC",
        "auprc": "AUPRC",
        "centroid_distance": "CentroidDistance",
    },
    "multimodal": {"modality_correlation": "ModalityCorrelation", "msfi": "MSFI"},
    "robustness": {
        "max_sensitivity": "MaxSensitivity",
        "average_sensitivity": "AverageSensitivity",
        "local_lipschitz": "LocalLipschitz",
        "seed_agreement": "SeedAgreement",
        "baseline_agreement": "BaselineAgreement",
        "network_agreement": "NetworkAgreement",
    },
    "randomization": {"emprt": "EfficientMPRT", "mprt": "MPRT", "random_class": "RandomClass"},
    "complexity": {
        "sparseness": "Sparseness",
        "complexity": "Complexity",
        "effective_volume": "EffectiveVolume",
    },
    "axioms": {
        "completeness": "Completeness",
        "dummy_input": "DummyInput",
        "linearity": "Linearity",
        "implementation_invariance": "ImplementationInvariance",
    },
}
"""Module to the names of its metrics and their classes."""

_PLACES = {name: module for module, names in _MODULES.items() for name in names}


class _Classes(Mapping[str, type[Metric]]):
    """Name to class; the module of a metric is imported on first access."""

    def __getitem__(self, name: str) -> type[Metric]:
        module = _PLACES[name]
        classes = import_module(f"neuroxai.metrics.{module}")
        found: type[Metric] = getattr(classes, _MODULES[module][name])
        return found

    def __contains__(self, name: object) -> bool:
        return name in _PLACES

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)

    def __repr__(self) -> str:
        return f"<metrics: {', '.join(_PLACES)}>"


METRICS: Mapping[str, type[Metric]] = _Classes()
"""Name to class of every metric."""


def make_metric(name: str, parameters: Mapping[str, Any] | None = None) -> Metric:
    """Return a metric by its name, with some of its parameters set.

    Raises
    ------
    MetricError
        If the metric or a parameter is unknown.

    Examples
    --------
    >>> make_metric("deletion", {"steps": 4}).name
    'deletion'
    """
    if name not in METRICS:
        raise MetricError(f"unknown metric {name!r}: {suggestion(name, METRICS)}")
    metric = METRICS[name]
    known = [field.name for field in fields(metric)]
    for parameter in parameters or {}:
        if parameter not in known:
            hint = suggestion(parameter, known) if known else "it has no parameters"
            raise MetricError(f"{name} has no parameter {parameter!r}: {hint}")
    return metric(**(parameters or {}))
