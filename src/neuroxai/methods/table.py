"""The table of explanation methods; importable without torch, which takes seconds to import."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuroxai.methods.base import Method

ENTRY_POINTS = "neuroxai.methods"
"""Entry-point group through which installed packages add methods."""


@dataclass(frozen=True)
class Entry:
    """Listing of a method, equal to the attributes of its class.

    Attributes
    ----------
    class_name
        Class in the module of the method's name.
    title
        Name in figures and reports.
    citation
        DOI or arXiv number.
    parameters
        Parameters and their default values, as ``name=value`` separated by spaces.
    signed
        Whether negative values are evidence against the target.
    """

    class_name: str
    title: str
    citation: str
    parameters: str = ""
    signed: bool = True


TABLE: Mapping[str, Entry] = MappingProxyType(
    {
        "vanilla_gradient": Entry("VanillaGradient", "Vanilla gradient", "arXiv:1312.6034"),
        "guided_backprop": Entry("GuidedBackprop", "Guided backpropagation", "arXiv:1412.6806"),
        "integrated_gradients": Entry(
            "IntegratedGradients",
            "Integrated gradients",
            "arXiv:1703.01365",
            "steps=25 rule=adaptive baseline=auto tolerance=None",
        ),
        "guided_integrated_gradients": Entry(
            "GuidedIntegratedGradients",
            "Guided integrated gradients",
            "arXiv:2106.09788",
            "steps=200 fraction=0.25 max_distance=0.02 baseline=auto",
        ),
        "smoothgrad": Entry(
            "SmoothGrad",
            "SmoothGrad",
            "arXiv:1706.03825",
            "samples=16 noise=0.15 aggregation=mean of=vanilla_gradient tolerance=None",
        ),
        "grad_cam": Entry("GradCAM", "Grad-CAM", "arXiv:1610.02391", "layer=auto", signed=False),
        "guided_grad_cam": Entry(
            "GuidedGradCAM", "Guided Grad-CAM", "arXiv:1610.02391", "layer=auto"
        ),
    }
)
"""Name of a method, which is also the name of its module, to its listing."""


class _Classes(Mapping[str, "type[Method]"]):
    """Name to class; the module of a method is imported on first access."""

    def __getitem__(self, name: str) -> type[Method]:
        entry = TABLE[name]
        found: type[Method] = getattr(import_module(f"neuroxai.methods.{name}"), entry.class_name)
        return found

    def __contains__(self, name: object) -> bool:
        return name in TABLE

    def __iter__(self) -> Iterator[str]:
        return iter(TABLE)

    def __len__(self) -> int:
        return len(TABLE)

    def __repr__(self) -> str:
        return f"<methods: {', '.join(TABLE)}>"


METHODS: Mapping[str, type[Method]] = _Classes()
"""Name to class of every method in :data:`TABLE`."""
