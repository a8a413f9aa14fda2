"""A loaded network that fails on a case: said in one sentence, and told apart from our faults."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from neuroxai.core.engine.memory import is_out_of_memory
from neuroxai.core.errors import ModelError, NeuroXAIError
from neuroxai.models.model import Model

_CALL = "_call_impl"
"""Where PyTorch hands an input to a module."""


@contextmanager
def network_faults(model: Model, x: Tensor) -> Iterator[None]:
    """Turn what is raised inside a network's own forward pass to a ``ModelError``.

    Raises
    ------
    ModelError
        Naming the network, the input's shape and the network's own reason, or that memory ran out.
    """
    try:
        yield
    except NeuroXAIError:
        raise
    except (
        RuntimeError, ValueError, AssertionError, IndexError, TypeError, MemoryError,
    ) as error:  # fmt: skip
        if is_out_of_memory(error):
            raise ModelError(
                f"{model.card.name}: memory ran out on an input of {tuple(x.shape)}: free memory, "
                "or give a smaller image"
            ) from error
        frames = traceback.walk_tb(error.__traceback__)
        if not any(frame.f_code.co_name == _CALL for frame, _ in frames):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{model.card.name}: the network fails on an input of {tuple(x.shape)} ({reason}); "
            "if it takes other sizes or channels, say so in its card"
        ) from error
