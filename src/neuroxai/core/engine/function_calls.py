"""Base class of modes that see or change the torch calls of a network, without editing it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from inspect import Parameter, signature
from typing import Any

from torch.overrides import TorchFunctionMode


class FunctionCalls(TorchFunctionMode):
    """Context manager that passes every call of a torch function or tensor method to :meth:`call`.

    Examples
    --------
    >>> import torch
    >>> class Names(FunctionCalls):
    ...     def call(self, func, args, kwargs):
    ...         print(func.__name__)
    ...         return func(*args, **kwargs)
    >>> with Names():
    ...     result = torch.relu(torch.tensor(-1.0))
    tensor
    relu
    """

    @abstractmethod
    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of a call; calls made in here do not reach this mode again."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return self.call(func, args, kwargs or {})


class Binder:
    """Binds the arguments of a call to the parameters of a function that may replace it.

    Parameters
    ----------
    names
        The function's parameters, in order.
    required
        Those without a default.

    Examples
    --------
    >>> def kernel(input, dim=0): ...
    >>> bind = Binder.of(kernel)
    >>> bind(("x", 1), {}), bind(("x",), {"dim": 2}), bind(("x",), {"axis": 2})
    ({'input': 'x', 'dim': 1}, {'input': 'x', 'dim': 2}, None)
    """

    def __init__(self, names: Iterable[str], required: Iterable[str] = ()) -> None:
        self._names = tuple(names)
        self._required = frozenset(required)

    @classmethod
    def of(cls, function: Callable[..., Any], skip: int = 0) -> Binder:
        """Return the binder for a function, without its first ``skip`` parameters."""
        parameters = [*signature(function).parameters.values()][skip:]
        required = [each.name for each in parameters if each.default is Parameter.empty]
        return cls([each.name for each in parameters], required)

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """Return the arguments by name, or None if the call does not match the signature."""
        if len(args) > len(self._names):
            return None
        bound = dict(zip(self._names, args, strict=False))
        for name, value in kwargs.items():
            if name in bound or name not in self._names:
                return None
            bound[name] = value
        return bound if self._required <= bound.keys() else None
