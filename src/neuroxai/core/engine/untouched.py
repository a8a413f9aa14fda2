"""Freeze a network for a while and restore it afterwards, after an error or interrupt as well."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from neuroxai.core.engine.network_state import NetworkState
from neuroxai.core.engine.norm_gradients import NormGradients
from neuroxai.core.engine.precision import in_single_precision, tf32_allowed
from neuroxai.core.engine.random_state import RandomState
from neuroxai.core.engine.settings import PassSettings

_lock = threading.RLock()
"""Held while a network is frozen: networks may share weights, and all share the random state."""


@contextmanager
def untouched(network: nn.Module, settings: PassSettings | None = None) -> Iterator[nn.Module]:
    """Context manager that freezes a network in evaluation mode and restores everything on exit.

    Restored bit for bit: training flags, ``requires_grad``, weights and buffers (also if a forward
    pass writes to them or replaces them), plain attributes of modules such as caches, hook tables,
    the global random state of the CPU and of the network's device, those of NumPy and Python, and
    generators that the network holds. State outside of the modules
    (global variables, ``functools.cache``) is not restored. Modules with their own ``train``
    method, such as adapters that are merged for evaluation, are switched back by it. Gradients
    (``.grad``) are never written. Other threads wait.

    Inside, nothing rounds to TF32 unless the settings request it, and the weights of a 16-bit
    network are in single precision, so convert its images with
    :func:`~neuroxai.core.engine.precision.upcast`. A network compiled by ``torch.compile`` runs
    eagerly. Batch and instance norms have correct gradients whatever the memory layout, see
    :mod:`~neuroxai.core.engine.norm_gradients`.

    Parameters
    ----------
    network
        Any module.
    settings
        The settings of the passes inside.

    Examples
    --------
    >>> layer = nn.BatchNorm1d(3)
    >>> with untouched(layer):
    ...     layer.training, layer.weight.requires_grad
    (False, False)
    >>> layer.training, layer.weight.requires_grad
    (True, True)
    """
    tf32 = settings is not None and settings.precision == "tf32"
    with _lock:
        # A frozen TorchScript module has no flag.
        training = [(module, getattr(module, "training", None)) for module in network.modules()]
        own = {module for module, _ in training if type(module).train is not nn.Module.train}
        state, random = NetworkState(network), RandomState(network)
        gradient_flags = [(p, p.requires_grad) for p in network.parameters()]
        devices = {p.device for p, _ in gradient_flags if p.device.type == "cuda"}
        forked = torch.random.fork_rng(devices=sorted(devices, key=str))
        with forked, tf32_allowed(devices, allowed=tf32), _eager(), NormGradients():
            try:
                network.eval()
                for parameter, _ in gradient_flags:
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
                random.restore()
                for parameter, flag in gradient_flags:
                    parameter.requires_grad_(flag)


def _eager() -> AbstractContextManager[Any]:
    """Run compiled modules eagerly: a compiled graph exposes neither layers nor activations."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled; the import would take seconds
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance
