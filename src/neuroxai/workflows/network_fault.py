"""Errors of a network on an input, as one sentence that names the network and the way out."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from neuroxai.core.engine.memory import is_out_of_memory
from neuroxai.core.errors import NETWORK_ERRORS, ModelError, NeuroXAIError
from neuroxai.models.model import Model
from neuroxai.workflows.network_call import NetworkCall

_CALL = "_call_impl"
"""The function of PyTorch that calls a module's forward."""

_GIVE = "give all of them: a tuple of arguments, a dict by name, or inputs= beside the image"


@contextmanager
def network_faults(model: Model | nn.Module, x: Tensor) -> Iterator[None]:
    """Context manager that raises a network's own errors as ``ModelError``.

    An error from outside the network's forward pass is passed on unchanged.

    Raises
    ------
    ModelError
        Naming the network, the input's shape, the network's reason and what to do, or that memory
        ran out.
    """
    name = network_name(model)
    try:
        yield
    except NeuroXAIError:
        raise
    except (*NETWORK_ERRORS, KeyError, AttributeError) as error:
        if is_out_of_memory(error):
            raise ModelError(
                f"{name}: memory ran out on an input of {tuple(x.shape)}: free memory, "
                "or use a smaller image"
            ) from error
        frames = traceback.walk_tb(error.__traceback__)
        if not any(frame.f_code.co_name == _CALL for frame, _ in frames):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{name}: the network fails on an input of {tuple(x.shape)} ({reason}); "
            f"{_way_out(model, x)}"
        ) from error


def network_name(model: Model | nn.Module) -> str:
    """Return the name of a network in messages."""
    if isinstance(model, Model):
        return model.card.name
    return model.name if isinstance(model, NetworkCall) else type(model).__name__


def check_network(network: object) -> None:
    """Raise if a network is not a module that is ready to run.

    Raises
    ------
    ModelError
        If it is a class, cannot be called, or is a module with uninitialized parameters.
    """
    if isinstance(network, type) and issubclass(network, nn.Module):
        raise ModelError(
            f"the model is the class {network.__name__}, expected a module: create one, "
            f"{network.__name__}(...), and load its weights"
        )
    if not callable(network):
        raise ModelError(
            f"the model is {type(network).__name__}, expected a torch.nn.Module or a function"
        )
    if not isinstance(network, nn.Module):
        return
    if any(is_lazy(each) for each in (*network.parameters(), *network.buffers())):
        raise ModelError(
            f"{type(network).__name__}: the network has lazy layers without weights yet: call it "
            "once on an input, and train it or load its weights"
        )


def _way_out(model: Model | nn.Module, x: Tensor) -> str:
    """Return what to do about an error, from the network's parameters and its signature."""
    network = model.network if isinstance(model, Model) else model
    needed = _required_inputs(network.function if isinstance(network, NetworkCall) else network)
    if len(needed) > 1:
        return f"it needs {len(needed)} inputs ({', '.join(needed)}): {_GIVE}"
    if isinstance(model, Model):
        return "if it needs other sizes or channels, set them in its card"
    return (
        "if it needs other sizes or channels, change the input; if its forward takes a dictionary "
        "or a list, give one; for anything else, explain a function of the image"
    )


def _required_inputs(network: Callable[..., Any]) -> list[str]:
    """Return the names of the positional parameters that have no default value."""
    if isinstance(network, torch.jit.ScriptModule):
        return []  # its signature is not that of a Python function
    try:
        called = network.forward if isinstance(network, nn.Module) else network
        parameters = inspect.signature(called).parameters.values()
    except (TypeError, ValueError):
        return []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [
        each.name
        for each in parameters
        if each.kind in positional and each.default is inspect.Parameter.empty
    ]
