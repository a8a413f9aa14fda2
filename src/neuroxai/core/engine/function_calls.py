"""The calls of torch that a network makes, seen and changed without editing it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode


class FunctionCalls(TorchFunctionMode):
    """Sees every call of torch's functions and of tensors' methods, inside.

    Examples
    --------
    >>> import torch
    >>> class Names(FunctionCalls):
    ...     def call(self, func, args, kwargs):
    ...         print(func.__name__)
    ...         return func(*args, **kwargs)
    >>> with Names():
    ...     found = torch.relu(torch.tensor(-1.0))
    tensor
    relu
    """

    @abstractmethod
    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of a call; what is called in here is not seen again."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return self.call(func, args, kwargs or {})
