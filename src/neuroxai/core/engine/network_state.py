"""What a network holds: weights, buffers, submodules, and plain attributes such as caches."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
"""Tables and flags of ``torch.nn.Module`` itself, which are restored by name."""

_DEPTH = 4
"""Levels of containers and objects that are followed from an attribute of a module. Caches are one
or two deep; a reference to a trainer would lead to whole data sets."""

_OPAQUE = (nn.Module, type, ModuleType, FunctionType, MethodType, torch.device, torch.dtype)


class NetworkState:
    """Weights, buffers, submodules and plain attributes: the objects, and their values.

    Lists, dictionaries, sets, tensors, arrays and objects that are held by attributes are followed
    a few levels deep. State outside of the modules, such as global variables and caches of
    ``functools``, is not seen.

    Parameters
    ----------
    network
        Any module.
    weights
        Whether the values of parameters are included, which a pass in evaluation mode keeps.
    """

    def __init__(self, network: nn.Module, *, weights: bool = True) -> None:
        self._tables: list[tuple[Any, Any]] = []
        self._values: list[tuple[Tensor, Tensor, Tensor]] = []
        self._arrays: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []
        self._seen: dict[int, Any] = {}
        """Objects by identity; they are kept alive, so that no identity is used again."""
        for tensor in (*network.parameters(), *network.buffers()):
            self._seen[id(tensor)] = tensor
            if not is_lazy(tensor) and (weights or not isinstance(tensor, nn.Parameter)):
                self._values.append((tensor, tensor.data, tensor.detach().clone()))
        for module in network.modules():
            # TorchScript has tables of its own, in which names cannot change.
            if isinstance(module, torch.jit.ScriptModule):
                continue
            tables = module._parameters, module._buffers, module._modules
            self._tables += [(table, dict(table)) for table in tables]
            names = module._non_persistent_buffers_set
            self._tables.append((names, set(names)))
            if not isinstance(module, LazyModuleMixin):  # its first call makes its weights for good
                self._follow_attributes(module)

    def is_changed(self) -> bool:
        """Return whether anything is not as it was."""
        return (
            any(not _is_same(table, before) for table, before in self._tables)
            or any(not _holds(tensor, data, value) for tensor, data, value in self._values)
            or any(now.tobytes() != before.tobytes() for now, before in self._arrays)
        )

    def restore(self) -> None:
        """Restore every object and value."""
        for table, before in self._tables:
            if not _is_same(table, before):
                table.clear()
                table.extend(before) if isinstance(table, list | deque) else table.update(before)
        with torch.no_grad():
            for tensor, data, value in self._values:
                if tensor.data_ptr() != data.data_ptr() or tensor.shape != data.shape:
                    tensor.data = data
                if not torch.equal(tensor, value):
                    tensor.copy_(value)
        for array, values in self._arrays:
            if array.flags.writeable and array.tobytes() != values.tobytes():
                np.copyto(array, values)

    def _follow_attributes(self, module: nn.Module) -> None:
        table = _Attributes(vars(module))
        self._tables.append((table, table.copy()))
        for value in table.copy().values():
            self._follow(value, 1)

    def _follow(self, value: Any, depth: int) -> None:
        if depth > _DEPTH or id(value) in self._seen or isinstance(value, _OPAQUE):
            return
        if isinstance(value, Tensor):
            self._seen[id(value)] = value
            if value.layout is torch.strided and not value.is_meta and not is_lazy(value):
                self._values.append((value, value.data, value.detach().clone()))
        elif isinstance(value, np.ndarray):
            self._seen[id(value)] = value
            if not value.dtype.hasobject:
                self._arrays.append((value, value.copy()))
        elif isinstance(value, list | deque | set | dict):
            self._seen[id(value)] = value
            self._tables.append((value, _copy(value)))
            inside = value.values() if isinstance(value, dict) else value
            for each in list(inside):
                self._follow(each, depth + 1)
        elif isinstance(value, tuple):
            for each in value:
                self._follow(each, depth + 1)
        elif _is_users_object(value):
            self._seen[id(value)] = value
            self._follow(vars(value), depth)


class _Attributes:
    """The plain attributes of a module, as a table."""

    def __init__(self, attributes: dict[str, Any]) -> None:
        self._attributes = attributes

    def copy(self) -> dict[str, Any]:
        return {
            name: value for name, value in self._attributes.items() if name not in _OF_EVERY_MODULE
        }

    def clear(self) -> None:
        for name in self.copy():
            del self._attributes[name]

    def update(self, values: dict[str, Any]) -> None:
        self._attributes.update(values)


@contextmanager
def restored(network: nn.Module) -> Iterator[None]:
    """Context manager for a pass of which a frozen network keeps nothing.

    Examples
    --------
    >>> layer = nn.ReLU()
    >>> with restored(layer):
    ...     layer.cache = torch.ones(3)
    >>> hasattr(layer, "cache")
    False
    """
    state = NetworkState(network, weights=False)
    try:
        yield
    finally:
        state.restore()


def _is_users_object(value: Any) -> bool:
    """Return whether an object's attributes are followed: not those of locks, events, loggers."""
    library = type(value).__module__.partition(".")[0]
    known = library in sys.stdlib_module_names and not isinstance(value, SimpleNamespace)
    return not known and isinstance(getattr(value, "__dict__", None), dict)


def _copy(value: Any) -> Any:
    """Return a plain copy of a container, whatever the constructor of its class takes."""
    for kind in (dict, list, set):
        if isinstance(value, kind):
            return kind(value)
    return list(value)


def _is_same(table: Any, before: Any) -> bool:
    if isinstance(table, set):
        return bool(table == before)
    if isinstance(table, _Attributes):
        table = table.copy()
    if len(table) != len(before):
        return False
    if isinstance(before, dict):
        return list(table) == list(before) and all(table[key] is before[key] for key in before)
    return all(now is then for now, then in zip(table, before, strict=True))


def _holds(tensor: Tensor, data: Tensor, value: Tensor) -> bool:
    same = tensor.data_ptr() == data.data_ptr() and tensor.shape == data.shape
    return same and torch.equal(tensor, value)
