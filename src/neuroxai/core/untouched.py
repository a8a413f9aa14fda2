"""The network left as found: after success, an exception or a keyboard interrupt."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from neuroxai.core.precision import in_single_precision, no_silent_tf32

_locks: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_registry = threading.Lock()


def _lock_of(network: nn.Module) -> threading.RLock:
    with _registry:
        return _locks.setdefault(network, threading.RLock())


@contextmanager
def untouched(network: nn.Module) -> Iterator[nn.Module]:
    """Freeze a network in evaluation mode, and give back everything that was lent.

    Restored bit for bit: training flags (and what modules with a ``train`` of their own do there
    to their weights, as adapters that are merged for evaluation), ``requires_grad``, buffers, the
    hook tables and the global random state of the CPU and of the network's device. Gradients
    (``.grad``) are never written. A second thread on the same network waits. Nothing rounds to
    TF32, inside, but where :mod:`~neuroxai.core.precision` was asked for it, and weights of 16
    bits stand in single precision: give it images of :func:`~neuroxai.core.precision.wide`.

    Examples
    --------
    >>> layer = nn.BatchNorm1d(3)
    >>> with untouched(layer):
    ...     layer.training, layer.weight.requires_grad
    (False, False)
    >>> layer.training, layer.weight.requires_grad
    (True, True)
    """
    with _lock_of(network):
        training = [(module, module.training) for module in network.modules()]
        own = [module for module, _ in training if type(module).train is not nn.Module.train]
        weights = {p: p.detach().clone() for module in own for p in module.parameters()}
        frozen = [(p, p.requires_grad) for p in network.parameters()]
        buffers = [
            (module, name, buffer, buffer.clone())
            for module in network.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        devices = {p.device for p, _ in frozen if p.device.type == "cuda"}
        forked = torch.random.fork_rng(devices=sorted(devices, key=str))
        with forked, no_silent_tf32(devices):
            try:
                network.eval()
                for parameter, _ in frozen:
                    parameter.requires_grad_(False)
                with in_single_precision(network):
                    yield network
            finally:
                flags = dict(training)
                for module in own:
                    module.train(flags[module])
                for module, flag in training:
                    module.training = flag
                for parameter, flag in frozen:
                    parameter.requires_grad_(flag)
                with torch.no_grad():
                    for parameter, value in weights.items():
                        if not torch.equal(parameter, value):
                            parameter.copy_(value)
                    for module, name, buffer, saved in buffers:
                        module._buffers[name] = buffer  # a forward pass may have put a new one
                        if not torch.equal(buffer, saved):
                            buffer.copy_(saved)
