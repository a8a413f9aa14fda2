"""Errors of a loaded network on a case, as one sentence that names the network."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from neuroxai.core.engine.memory import is_out_of_memory
from neuroxai.core.errors import NETWORK_ERRORS, ModelError, NeuroXAIError
from neuroxai.models.model import Model

_CALL = "_call_impl"
"""The function of PyTorch that calls a module's forward."""


@contextmanager
def network_faults(model: Model, x: Tensor) -> Iterator[None]:
    """Context manager that raises a network's own errors as ``ModelError``.

    An error from outside the network's forward pass is passed on unchanged.

    Raises
    ------
    ModelError
        Naming the network, the input's shape and the network's reason, or that memory ran out.
    """
    try:
        yield
    except NeuroXAIError:
        raise
    except NETWORK_ERRORS as error:
        if is_out_of_memory(error):
            raise ModelError(
                f"{model.card.name}: memory ran out on an input of {tuple(x.shape)}: free memory, "
                "or use a smaller image"
            ) from error
        frames = traceback.walk_tb(error.__traceback__)
        if not any(frame.f_code.co_name == _CALL for frame, _ in frames):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{model.card.name}: the network fails on an input of {tuple(x.shape)} ({reason}); "
            "if it needs other sizes or channels, set them in its card"
        ) from error
