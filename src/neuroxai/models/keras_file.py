"""Reading of the layers' arrays from legacy Keras HDF5 files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import MissingExtraError, ModelError
from neuroxai.models.weights import LARGEST

_MOST_LAYERS = 10_000
"""Far more than any network has; a longer list is not from Keras."""


@dataclass(frozen=True, eq=False)
class KerasLayer:
    """A layer with weights."""

    name: str
    """Name of the layer."""
    arrays: dict[str, NDArray[Any]]
    """Arrays by the last part of their names, for example ``kernel`` or ``moving_mean``."""

    @property
    def is_norm(self) -> bool:
        """Whether the layer is a batch norm."""
        return "moving_variance" in self.arrays


def read_keras_layers(path: Path) -> list[KerasLayer]:
    """Read the layers with weights of a whole-model or weights-only file, in the file's order.

    Only numeric arrays in the file itself are read. The model's configuration, which can contain
    code (lambda layers), is not read, and links are rejected.

    Raises
    ------
    ModelError
        If the file has another format, or an array is linked, not numeric, not finite, or too
        large.
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
                root = _child(file, "model_weights", path, h5py)
            layers = [_layer(root, name, path, h5py) for name in _names(root, "layer_names", path)]
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: not a legacy Keras HDF5 file ({error})") from error
    found = [layer for layer in layers if layer.arrays]
    if not found:
        raise ModelError(f"{path}: has no layer with weights")
    return found


def _names(group: Any, attribute: str, path: Path) -> list[str]:
    """Return a list of names; Keras splits long lists over numbered attributes."""
    parts = [attribute] if attribute in group.attrs else []
    while not parts or parts[0] != attribute:
        numbered = f"{attribute}{len(parts)}"
        if numbered not in group.attrs:
            break
        parts.append(numbered)
    names = [each for part in parts for each in group.attrs[part]]
    if not parts or len(names) > _MOST_LAYERS:
        raise ModelError(
            f"{path}: has no valid list of {attribute}; expected a file written by Keras"
        )
    return [each.decode() if isinstance(each, bytes) else str(each) for each in names]


def _layer(root: Any, name: str, path: Path, h5py: Any) -> KerasLayer:
    group = _child(root, name, path, h5py)
    arrays: dict[str, NDArray[Any]] = {}
    for weight in _names(group, "weight_names", path):
        found = group
        for part in weight.split("/"):
            found = _child(found, part, path, h5py)
        arrays[weight.rsplit("/", 1)[-1].partition(":")[0]] = _array(found, weight, path, h5py)
    return KerasLayer(name, arrays)


def _child(group: Any, name: str, path: Path, h5py: Any) -> Any:
    """Return a group's own entry; links are rejected, because they can point to other files."""
    if name in ("", ".", "..") or not isinstance(group, h5py.Group) or name not in group:
        raise ModelError(f"{path}: {name!r} does not exist; expected a file written by Keras")
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ModelError(f"{path}: {name!r} is a link; links are not followed")
    return group[name]


def _array(found: Any, name: str, path: Path, h5py: Any) -> NDArray[Any]:
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "fiu":
        raise ModelError(f"{path}: {name} is not an array of numbers")
    if found.external or found.is_virtual:
        raise ModelError(f"{path}: {name} is stored in another file, which is not read")
    if found.nbytes > LARGEST:
        raise ModelError(f"{path}: {name} has {found.nbytes} bytes, expected at most {LARGEST}")
    values = np.asarray(found[()])
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ModelError(f"{path}: {name} has values that are not finite")
    return values
