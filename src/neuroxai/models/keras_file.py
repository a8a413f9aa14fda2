"""Legacy Keras HDF5 files: the layers' arrays in order, and nothing else of the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import MissingExtraError, ModelError
from neuroxai.models.weights import LARGEST

_MOST_LAYERS = 10_000


@dataclass(frozen=True, eq=False)
class KerasLayer:
    """One layer with weights."""

    name: str
    arrays: dict[str, NDArray[Any]]
    """Last part of each weight's name, as ``kernel`` or ``moving_mean``, to its array."""

    @property
    def is_norm(self) -> bool:
        """Whether it is a batch norm."""
        return "moving_variance" in self.arrays


def read_keras_layers(path: Path) -> list[KerasLayer]:
    """Return the layers with weights of a whole-model or weights-only file, in the file's order.

    Only numeric arrays that lie in the file itself are read: the model's configuration, which can
    carry code (lambda layers), is not, and links to other files are refused.

    Raises
    ------
    ModelError
        If it is no such file, or an array is linked, not numeric, not finite, or too large.
    MissingExtraError
        If h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("Reading Keras weights", "keras", "h5py") from error
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            root = file
            if "model_weights" in file and "layer_names" not in file.attrs:
                root = _inside(file, "model_weights", path, h5py)
            layers = [_layer(root, name, path, h5py) for name in _names(root, "layer_names", path)]
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: not a legacy Keras HDF5 file ({error})") from error
    found = [layer for layer in layers if layer.arrays]
    if not found:
        raise ModelError(f"{path}: holds no layer with weights")
    return found


def _names(group: Any, attribute: str, path: Path) -> list[str]:
    """Return a list of names; Keras splits long ones over numbered attributes."""
    parts = [attribute] if attribute in group.attrs else []
    while not parts or parts[0] != attribute:
        numbered = f"{attribute}{len(parts)}"
        if numbered not in group.attrs:
            break
        parts.append(numbered)
    names = [each for part in parts for each in group.attrs[part]]
    if not parts or len(names) > _MOST_LAYERS:
        raise ModelError(f"{path}: has no usable list of {attribute}, as Keras writes it")
    return [each.decode() if isinstance(each, bytes) else str(each) for each in names]


def _layer(root: Any, name: str, path: Path, h5py: Any) -> KerasLayer:
    group = _inside(root, name, path, h5py)
    arrays: dict[str, NDArray[Any]] = {}
    for weight in _names(group, "weight_names", path):
        found = group
        for part in weight.split("/"):
            found = _inside(found, part, path, h5py)
        arrays[weight.rsplit("/", 1)[-1].partition(":")[0]] = _array(found, weight, path, h5py)
    return KerasLayer(name, arrays)


def _inside(group: Any, name: str, path: Path, h5py: Any) -> Any:
    """Return what lies in a group under its own name; a link could lead anywhere."""
    if name in ("", ".", "..") or not isinstance(group, h5py.Group) or name not in group:
        raise ModelError(f"{path}: {name!r} is not there, the file is not as Keras writes it")
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ModelError(f"{path}: {name!r} is a link to somewhere else; it is not followed")
    return group[name]


def _array(found: Any, name: str, path: Path, h5py: Any) -> NDArray[Any]:
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "fiu":
        raise ModelError(f"{path}: {name} is no array of numbers")
    if found.external or found.is_virtual:
        raise ModelError(f"{path}: {name} lies in another file; it is not read")
    if found.nbytes > LARGEST:
        raise ModelError(f"{path}: {name} claims {found.nbytes} bytes, more than a layer has")
    values = np.asarray(found[()])
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ModelError(f"{path}: {name} holds values that are not finite")
    return values
