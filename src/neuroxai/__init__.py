"""NeuroXAI explains deep networks that read brain MRI.

Research software, not for clinical use.

>>> import neuroxai as nx
>>> sorted(nx.METHODS)[:2]
['grad_cam', 'guided_backprop']
"""

from typing import TYPE_CHECKING, Any

from neuroxai.version import __version__

if TYPE_CHECKING:
    from neuroxai.core.allocator import tune_allocator
    from neuroxai.core.errors import NeuroXAIError
    from neuroxai.core.explanation import Explanation
    from neuroxai.core.fast_path import stock_torch
    from neuroxai.core.outputs import Outputs
    from neuroxai.core.restriction import Box, Mask, voxel
    from neuroxai.core.target import Class, Predicted, Region
    from neuroxai.data.brats import read_case
    from neuroxai.data.case import Case
    from neuroxai.data.phantom import make_phantom
    from neuroxai.explainer import explain, predict
    from neuroxai.explanations import Explanations
    from neuroxai.methods import METHODS
    from neuroxai.models.loading import load_model
    from neuroxai.models.model import Model
    from neuroxai.patient_map import PatientMap

_HOME = {
    "Box": "core.restriction",
    "Case": "data.case",
    "Class": "core.target",
    "Explanation": "core.explanation",
    "Explanations": "explanations",
    "METHODS": "methods",
    "Mask": "core.restriction",
    "Model": "models.model",
    "NeuroXAIError": "core.errors",
    "Outputs": "core.outputs",
    "PatientMap": "patient_map",
    "Predicted": "core.target",
    "Region": "core.target",
    "explain": "explainer",
    "load_model": "models.loading",
    "make_phantom": "data.phantom",
    "predict": "explainer",
    "read_case": "data.brats",
    "stock_torch": "core.fast_path",
    "tune_allocator": "core.allocator",
    "voxel": "core.restriction",
}

__all__ = [
    "METHODS",
    "Box",
    "Case",
    "Class",
    "Explanation",
    "Explanations",
    "Mask",
    "Model",
    "NeuroXAIError",
    "Outputs",
    "PatientMap",
    "Predicted",
    "Region",
    "__version__",
    "explain",
    "load_model",
    "make_phantom",
    "predict",
    "read_case",
    "stock_torch",
    "tune_allocator",
    "voxel",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the import itself is light."""
    if name not in _HOME:
        raise AttributeError(f"module 'neuroxai' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"neuroxai.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
