"""The table of explanation methods; importable without torch, which takes seconds to import."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING

from neuroxai.core.errors import MethodError, suggestion

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
    on_request
        Whether ``all`` leaves the method out, because it takes hundreds of passes.
    """

    class_name: str
    title: str
    citation: str
    parameters: str = ""
    signed: bool = True
    on_request: bool = False

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of the parameters, without their default values."""
        return tuple(each.partition("=")[0] for each in self.parameters.split())


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
        "deconvolution": Entry("Deconvolution", "Deconvolution", "arXiv:1311.2901"),
        "hirescam": Entry("HiResCAM", "HiResCAM", "arXiv:2011.08891", "layer=auto"),
        "layercam": Entry(
            "LayerCAM", "LayerCAM", "doi:10.1109/TIP.2021.3089943", "layer=auto", signed=False
        ),
        "input_x_gradient": Entry("InputXGradient", "Input × gradient", "arXiv:1605.01713"),
        "cam": Entry("CAM", "CAM", "arXiv:1512.04150", "layer=auto", on_request=True),
        "grad_cam_plus_plus": Entry(
            "GradCAMPlusPlus",
            "Grad-CAM++",
            "arXiv:1710.11063",
            "layer=auto",
            signed=False,
            on_request=True,
        ),
        "deeplift": Entry(
            "DeepLIFT", "DeepLIFT", "arXiv:1704.02685", "baseline=auto", on_request=True
        ),
        "lrp": Entry(
            "LRP",
            "Layer-wise relevance propagation",
            "doi:10.1371/journal.pone.0130140",
            "composite=epsilon_plus_flat epsilon=1e-06",
            on_request=True,
        ),
        "class_model": Entry(
            "ClassModel",
            "Class model",
            "arXiv:1312.6034",
            "steps=64 rate=1.0 weight=0.01 start=0.01",
            on_request=True,
        ),
        "occlusion": Entry(
            "Occlusion",
            "Occlusion",
            "arXiv:1311.2901",
            "remover=auto value=target box=None stride=None each_modality=False",
            on_request=True,
        ),
        "feature_ablation": Entry(
            "FeatureAblation",
            "Feature ablation",
            "arXiv:2009.07896",
            "remover=auto value=target features=supervoxels segments=50 each_modality=False",
            on_request=True,
        ),
        "rise": Entry(
            "RISE",
            "RISE",
            "arXiv:1806.07421",
            "remover=auto value=target samples=512 cells=4 scales=3 tolerance=None",
            on_request=True,
        ),
        "lime": Entry(
            "LIME",
            "LIME",
            "arXiv:1602.04938",
            "remover=auto value=target features=supervoxels segments=50 each_modality=False "
            "samples=256 tolerance=None width=0.25 ridge=1.0",
            on_request=True,
        ),
        "kernel_shap": Entry(
            "KernelSHAP",
            "KernelSHAP",
            "arXiv:1705.07874",
            "remover=auto value=target features=supervoxels segments=50 each_modality=False "
            "samples=256 tolerance=None",
            on_request=True,
        ),
    }
)
"""Name of a method, which is also the name of its module, to its listing."""

PAPER = tuple(TABLE)[:7]
"""The seven methods of Zeineldin et al. 2022, in its order."""


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


def all_entries() -> Mapping[str, Entry]:
    """Return the listings of all methods; those of installed packages are imported."""
    if not entry_points(group=ENTRY_POINTS):
        return TABLE
    from neuroxai.methods.make import all_methods, describe_method

    added = {name: describe_method(method) for name, method in all_methods().items()}
    return MappingProxyType(added)


def check_method_name(name: str, known: Iterable[str]) -> None:
    """Raise if a method is unknown, or an installed one cannot be used."""
    if name in known:
        return
    if name in entry_points(group=ENTRY_POINTS).names:
        from neuroxai.methods.installed import installed_methods

        if name in installed_methods().unavailable:
            raise MethodError(installed_methods().unavailable[name])
    raise MethodError(f"unknown method {name!r}: {suggestion(name, known)}")


def check_parameter_name(method: str, parameter: str, known: Collection[str]) -> None:
    """Raise if a method does not have a parameter."""
    if parameter not in known:
        hint = suggestion(parameter, known) if known else "it has no parameters"
        raise MethodError(f"{method} has no parameter {parameter!r}: {hint}")


def check_layer_used(layer: str, methods: Iterable[str], layered: Collection[str]) -> None:
    """Raise if a layer is given but no requested method uses one."""
    names = list(methods)
    if not {*names} & {*layered}:
        raise MethodError(
            f"layer {layer!r} is not used by {', '.join(names)}; omit it, or request "
            f"{' or '.join(layered)}"
        )
