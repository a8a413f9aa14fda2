"""The network left as found: after success, an exception or a keyboard interrupt."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from neuroxai.core.engine.precision import in_single_precision, no_silent_tf32

_one_at_a_time = threading.RLock()
"""Two networks may share their weights, and all share the random state."""


@contextmanager
def untouched(network: nn.Module) -> Iterator[nn.Module]:
    """Freeze a network in evaluation mode, and give back everything that was lent.

    Restored bit for bit: training flags (and what modules with a ``train`` of their own do there
    to their weights, as adapters that are merged for evaluation), ``requires_grad``, weights and
    buffers, also where a forward pass writes to them or puts others in their place, the hook
    tables and the global random state of the CPU and of the network's device. Gradients
    (``.grad``) are never written. A second thread waits. Nothing rounds to TF32, inside, but where
    :mod:`~neuroxai.core.engine.precision` was asked for it, and weights of 16 bits stand in single
    precision: give it images of :func:`~neuroxai.core.engine.precision.upcast`. What
    ``torch.compile`` made is run as it was written.

    Examples
    --------
    >>> layer = nn.BatchNorm1d(3)
    >>> with untouched(layer):
    ...     layer.training, layer.weight.requires_grad
    (False, False)
    >>> layer.training, layer.weight.requires_grad
    (True, True)
    """
    with _one_at_a_time:
        # A frozen TorchScript module has no flag.
        training = [(module, getattr(module, "training", None)) for module in network.modules()]
        own = {module for module, _ in training if type(module).train is not nn.Module.train}
        state = _State(network)
        frozen = [(p, p.requires_grad) for p in network.parameters()]
        devices = {p.device for p, _ in frozen if p.device.type == "cuda"}
        forked = torch.random.fork_rng(devices=sorted(devices, key=str))
        with forked, no_silent_tf32(devices), _uncompiled():
            try:
                network.eval()
                for parameter, _ in frozen:
                    parameter.requires_grad_(False)
                with in_single_precision(network):
                    yield network
            finally:
                for module, flag in training:
                    if flag is not None and module in own:
                        module.train(flag)
                for module, flag in training:
                    if flag is not None:
                        module.training = flag
                state.restore()
                for parameter, flag in frozen:
                    parameter.requires_grad_(flag)


def _uncompiled() -> AbstractContextManager[Any]:
    """Run what was compiled as it was written: a compiled graph shows neither layer nor ReLU."""
    if "torch._dynamo" not in sys.modules:  # nothing was; and to ask takes seconds
        return nullcontext()
    found: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return found


class _State:
    """The weights and buffers of a network: which they are, where they lie, and what they hold."""

    def __init__(self, network: nn.Module) -> None:
        # TorchScript keeps tables of its own, in which names cannot change.
        self._tables: list[tuple[Any, Any]] = []
        for module in network.modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            for table in (module._parameters, module._buffers):
                self._tables.append((table, dict(table)))
            names = module._non_persistent_buffers_set
            self._tables.append((names, set(names)))
        tensors = [*network.parameters(), *network.buffers()]
        self._values = [(t, t.data, t.detach().clone()) for t in tensors if not is_lazy(t)]

    def restore(self) -> None:
        for table, before in self._tables:
            if table != before if isinstance(table, set) else not _same(table, before):
                table.clear()
                table.update(before)
        with torch.no_grad():
            for tensor, data, value in self._values:
                if tensor.data_ptr() != data.data_ptr() or tensor.shape != data.shape:
                    tensor.data = data
                if not torch.equal(tensor, value):
                    tensor.copy_(value)


def _same(table: dict[str, Tensor | None], before: dict[str, Tensor | None]) -> bool:
    return list(table) == list(before) and all(table[name] is before[name] for name in table)
