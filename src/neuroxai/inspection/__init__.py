"""Inspection of networks: information flow, filters, dissection and ablation."""

from neuroxai.inspection.filters import LayerFilters, filters
from neuroxai.inspection.information_flow import InformationFlow, TargetFlow, information_flow

__all__ = [
    "InformationFlow", "LayerFilters", "TargetFlow", "filters", "information_flow",
]  # fmt: skip
