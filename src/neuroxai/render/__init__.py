"""Figures and HTML pages of explanations; attributions are displayed but never modified."""

from neuroxai.render.colors import Limits, color_limits
from neuroxai.render.figures import draw_modalities, draw_planes
from neuroxai.render.page import Figure, Section, Table, write_page
from neuroxai.render.scan import HeatMap, Scan

__all__ = [
    "Figure",
    "HeatMap",
    "Limits",
    "Scan",
    "Section",
    "Table",
    "color_limits",
    "draw_modalities",
    "draw_planes",
    "write_page",
]
