"""The device of a network: choosing one, and moving a network there and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from neuroxai.core.engine.settings import check_device_name
from neuroxai.core.errors import ModelError


def choose_device(name: str) -> torch.device:
    """Return the device named ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Raises
    ------
    ModelError
        If the device does not exist.
    """
    check_device_name(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device {name!r} is not available: use auto or cpu")
    return device


@contextmanager
def on_device(network: nn.Module, device: torch.device | None) -> Iterator[None]:
    """Context manager that moves a network to a device, and puts it back on exit.

    On exit every parameter, gradient and buffer is the same object with the same memory as before.
    None leaves the network where it is.

    Examples
    --------
    >>> network = nn.Linear(2, 2)
    >>> with on_device(network, torch.device("meta")):
    ...     network.weight.device.type
    'meta'
    >>> network.weight.device.type
    'cpu'
    """
    if device is None or device_of(network) == device:
        yield
        return
    before = _Placement(network)
    try:
        network.to(device)
        yield
    finally:
        before.restore()


def device_of(network: nn.Module) -> torch.device | None:
    """Return the device of a network's first parameter; None if it has no parameters."""
    parameter = next(network.parameters(), None)
    return None if parameter is None else parameter.device


class _Placement:
    """The memory of a network's parameters, gradients and buffers."""

    def __init__(self, network: nn.Module) -> None:
        # TorchScript keeps its buffers outside Python: its modules are moved back by a copy.
        self._scripted = [
            (module, device_of(module))
            for module in network.modules()
            if isinstance(module, torch.jit.ScriptModule)
        ]
        self._tables: list[tuple[dict[str, Any], dict[str, Any]]] = [
            (table, dict(table))
            for module in network.modules()
            if not isinstance(module, torch.jit.ScriptModule)
            for table in (module._parameters, module._buffers)
        ]
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        tensors: list[Tensor] = [*network.parameters(), *gradients]
        self._memory = [(tensor, tensor.data) for tensor in tensors if not is_lazy(tensor)]

    def restore(self) -> None:
        for module, home in self._scripted:
            if home is not None:
                module.to(home)
        for table, before in self._tables:
            table.update(before)
        for tensor, data in self._memory:
            tensor.data = data
