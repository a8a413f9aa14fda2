"""NeuroXAI explains deep networks that read brain MRI.

Research software, not for clinical use.

>>> import neuroxai as nx
>>> sorted(nx.METHODS)[:2]
['grad_cam', 'guided_backprop']
"""

from typing import TYPE_CHECKING, Any

from neuroxai.version import __version__

if TYPE_CHECKING:
    from neuroxai.core.engine.allocator import tune_allocator
    from neuroxai.core.engine.fast_path import stock_torch
    from neuroxai.core.errors import NeuroXAIError
    from neuroxai.core.explanation import Explanation
    from neuroxai.core.target.outputs import Outputs
    from neuroxai.core.target.restriction import Box, Mask, voxel
    from neuroxai.core.target.target import Class, Predicted, Region
    from neuroxai.data.brats import read_case
    from neuroxai.data.case import Case
    from neuroxai.data.phantom import make_phantom
    from neuroxai.methods import METHODS
    from neuroxai.models.loading import load_model
    from neuroxai.models.model import Model
    from neuroxai.patient.explanations import Explanations
    from neuroxai.patient.patient_map import PatientMap
    from neuroxai.workflows.explain import explain, predict

_HOME = {
    "Box": "core.target.restriction",
    "Case": "data.case",
    "Class": "core.target.target",
    "Explanation": "core.explanation",
    "Explanations": "patient.explanations",
    "METHODS": "methods",
    "Mask": "core.target.restriction",
    "Model": "models.model",
    "NeuroXAIError": "core.errors",
    "Outputs": "core.target.outputs",
    "PatientMap": "patient.patient_map",
    "Predicted": "core.target.target",
    "Region": "core.target.target",
    "explain": "workflows.explain",
    "load_model": "models.loading",
    "make_phantom": "data.phantom",
    "predict": "workflows.explain",
    "read_case": "data.brats",
    "stock_torch": "core.engine.fast_path",
    "tune_allocator": "core.engine.allocator",
    "voxel": "core.target.restriction",
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
