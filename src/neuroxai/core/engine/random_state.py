"""The random states that a network may draw from."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random


class RandomState:
    """States of all random numbers of a network: global ones, and generators of its own.

    Own generators are found in the attributes of its modules and in the Python files that define
    them, one container deep.

    Parameters
    ----------
    network
        Any module.

    Examples
    --------
    >>> state = RandomState(nn.ReLU())
    >>> state.is_changed()
    False
    >>> _ = np.random.rand()
    >>> state.is_changed()
    True
    >>> state.restore()
    >>> state.is_changed()
    False
    """

    def __init__(self, network: nn.Module) -> None:
        devices = {each.device for each in network.parameters() if each.device.type == "cuda"}
        self._generators = [*_generators(network)]
        self._devices = sorted(devices, key=str)
        self._before = self._now()

    def is_changed(self) -> bool:
        """Return whether random numbers were drawn since."""
        return repr(self._now()) != repr(self._before)

    def restore(self) -> None:
        """Restore NumPy's and Python's global state and the network's generators.

        The global states of torch are restored by ``torch.random.fork_rng``.
        """
        _, numpy, python, own = self._before
        np.random.set_state(numpy)  # noqa: NPY002  (what networks may use)
        random.setstate(python)
        for generator, state in zip(self._generators, own, strict=True):
            if isinstance(generator, torch.Generator):
                generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
            elif isinstance(generator, np.random.Generator):
                generator.bit_generator.state = state
            elif isinstance(generator, np.random.RandomState):
                generator.set_state(state)
            else:
                generator.setstate(state)

    def _now(self) -> tuple[Any, Any, Any, list[Any]]:
        of_torch = [torch.get_rng_state().numpy().tobytes()]
        of_torch += [torch.cuda.get_rng_state(each).numpy().tobytes() for each in self._devices]
        numpy: Any = np.random.get_state()  # noqa: NPY002
        numpy = (numpy[0], numpy[1].copy(), *numpy[2:])
        return of_torch, _Exact(numpy), random.getstate(), [_state(g) for g in self._generators]


class _Exact(tuple[Any, ...]):
    """NumPy's state, whose text is complete."""

    def __repr__(self) -> str:
        return f"{self[0]} {self[1].tobytes()!r} {self[2:]}"


def _state(generator: Generator) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state().numpy().tobytes()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        state: Any = generator.get_state()
        return _Exact((state[0], state[1].copy(), *state[2:]))
    return generator.getstate()


def _generators(network: nn.Module) -> Iterator[Generator]:
    tables = [vars(module) for module in network.modules()]
    files = {type(module).__module__ for module in network.modules()}
    tables += [vars(sys.modules[name]) for name in sorted(files) if name in sys.modules]
    seen: set[int] = set()
    for table in tables:
        for value in [*table.values()]:
            inside = value.values() if type(value) is dict else value
            several = type(value) in (list, tuple, dict)
            for each in [*inside] if several else [value]:
                if isinstance(each, Generator) and id(each) not in seen:
                    seen.add(id(each))
                    yield each
