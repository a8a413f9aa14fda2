"""Functions and networks of several inputs, as a module of the one input that is explained."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from neuroxai.core.errors import ModelError, suggestion

Path = tuple[int | str, ...]
"""The position of an input in the arguments: a number or name of a parameter, then keys."""

_IMAGE_AXES = 4
"""Axes of the smallest image, ``(B, C, H, W)``."""


@dataclass(frozen=True)
class Arguments:
    """The arguments of a network's forward pass.

    Parameters
    ----------
    args, kwargs
        Positional and named arguments: tensors, or dicts, lists and tuples of them, and anything
        else that the network takes.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None

    def leaves(self) -> Iterator[tuple[Path, Any]]:
        """Yield the position and value of everything that is not a collection."""
        for i, value in enumerate(self.args):
            yield from _leaves(value, (i,))
        for name, value in (self.kwargs or {}).items():
            yield from _leaves(value, (name,))

    def replace(self, change: Callable[[Path, Any], Any]) -> Arguments:
        """Return the arguments with each leaf changed."""
        args = tuple(_mapped(value, (i,), change) for i, value in enumerate(self.args))
        kwargs = {k: _mapped(v, (k,), change) for k, v in (self.kwargs or {}).items()}
        return Arguments(args, kwargs)


class NetworkCall(nn.Module):
    """A network or function, called with one input that varies and others that stay fixed.

    The varying input is ``(B, C, *S)``; inputs without space, such as clinical values ``(B, F)``,
    have axes of one element, ``(B, F, 1, 1)``. Fixed tensors with one row for each sample are
    repeated if several copies of the samples are passed at once.

    Parameters
    ----------
    function
        A module or any callable.
    arguments
        All arguments.
    path
        The position of the varying input.

    Examples
    --------
    >>> import torch
    >>> call = NetworkCall(lambda x, age: x.mean((2, 3)) * age, Arguments(
    ...     (torch.ones(1, 2, 8, 6), torch.tensor([[3.0]]))), (0,))
    >>> call(torch.ones(4, 2, 8, 6)).shape
    torch.Size([4, 2])
    """

    def __init__(self, function: Callable[..., Any], arguments: Arguments, path: Path) -> None:
        super().__init__()
        for name, module in modules_of(function).items():
            self.add_module(name, module)
        self._function = (function,)  # in a tuple, so that a module is not registered twice
        self._arguments, self._path = arguments, path
        self._given = next(value for at, value in arguments.leaves() if at == path)
        self.name = _name(function)
        self.training = False  # of this module alone; the networks keep their own mode

    @property
    def function(self) -> Callable[..., Any]:
        """The network or function that is called."""
        return self._function[0]

    @property
    def x(self) -> Tensor:
        """The varying input, with axes of one element for a missing space."""
        given: Tensor = self._given
        return given.reshape(*given.shape, *[1] * (_IMAGE_AXES - given.dim()))

    @property
    def given_shape(self) -> tuple[int, ...]:
        """The shape of the varying input as the network takes it."""
        return tuple(self._given.shape)

    @property
    def is_image(self) -> bool:
        """Whether the varying input has space."""
        given: Tensor = self._given
        return given.dim() >= _IMAGE_AXES

    def forward(self, x: Tensor) -> Any:
        """Call the network with ``x`` ``(n * B, C, *S)`` in place of the varying input."""
        samples = len(self._given)
        copies = len(x) // samples
        if self.is_image:
            self._check_size(x)

        def value(path: Path, fixed: Any) -> Any:
            if path == self._path:
                return x.reshape(len(x), *self._given.shape[1:]) if not self.is_image else x
            if not isinstance(fixed, Tensor):
                return fixed
            fixed = fixed.to(x.device)
            if copies > 1 and fixed.dim() and len(fixed) == samples:
                return fixed.repeat(copies, *[1] * (fixed.dim() - 1))
            return fixed

        called = self._arguments.replace(value)
        return self.function(*called.args, **(called.kwargs or {}))

    def _check_size(self, x: Tensor) -> None:
        """Raise if another size of the image would not fit to the fixed images."""
        space = self._given.shape[2:]
        if x.shape[2:] == space:
            return
        for path, value in self._arguments.leaves():
            if path != self._path and isinstance(value, Tensor) and value.shape[2:] == space:
                raise ModelError(
                    f"{self.name}: the image would be divided into parts of {tuple(x.shape[2:])}, "
                    f"which do not fit to the further input {format_path(path)} of "
                    f"{tuple(value.shape)}: give more memory, or smaller images"
                )


def as_arguments(function: Callable[..., Any], subject: Any, inputs: Any = None) -> Arguments:
    """Return the arguments that a user's value stands for.

    Parameters
    ----------
    function
        The network or function.
    subject
        A tensor or array, which is the first argument; a tuple of arguments; a dict, whose keys
        are names of parameters or which is the only argument; or a list, which is the only
        argument.
    inputs
        Further arguments: a tuple of positional ones, a dict of named ones, or a single value.

    Examples
    --------
    >>> as_arguments(lambda scan, age: scan, "scan", {"age": 3}).kwargs
    {'age': 3}
    """
    arguments = _arguments(function, subject)
    if inputs is None:
        return arguments
    if isinstance(inputs, Mapping) and _are_parameters(function, inputs):
        return Arguments(arguments.args, {**(arguments.kwargs or {}), **inputs})
    further = inputs if isinstance(inputs, tuple) else (inputs,)
    return Arguments((*arguments.args, *further), arguments.kwargs)


def named_inputs(function: Callable[..., Any], arguments: Arguments) -> dict[str, Path]:
    """Return the floating-point inputs of a call by name, images first.

    A positional argument is named by its parameter; an entry of a dict or list by a dot and its
    key.
    """
    names = _parameter_names(function)
    found = [
        (path, value)
        for path, value in arguments.leaves()
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 0
    ]
    found.sort(key=lambda each: each[1].dim() < _IMAGE_AXES)  # stable
    return {format_path(path, names): path for path, _ in found}


def choose_input(
    function: Callable[..., Any], arguments: Arguments, explained: str | None
) -> tuple[str, Path]:
    """Return the name and position of the input to explain.

    Parameters
    ----------
    function, arguments
        The call.
    explained
        The name of an input; by default the first image, or else the first floating-point input.

    Raises
    ------
    ModelError
        If there is no such input.
    """
    names = named_inputs(function, arguments)
    if not names:
        kinds = [type(value).__name__ for _, value in arguments.leaves()]
        raise ModelError(
            f"{_name(function)}: no input is a floating-point tensor or array (got "
            f"{', '.join(kinds) or 'nothing'}), so there is nothing to attribute to"
        )
    if explained is None:
        explained = next(iter(names))
    if explained not in names:
        raise ModelError(
            f"{_name(function)}: no floating-point input {explained!r}: "
            f"{suggestion(explained, names)}"
        )
    return explained, names[explained]


def format_path(path: Path, names: Sequence[str] = ()) -> str:
    """Return the name of an input.

    Examples
    --------
    >>> format_path((0, "image"), ["batch"]), format_path((1,))
    ('batch.image', '1')
    """
    first, *rest = path
    if isinstance(first, int) and first < len(names):
        first = names[first]
    return ".".join(map(str, (first, *rest)))


def _arguments(function: Callable[..., Any], subject: Any) -> Arguments:
    if isinstance(subject, tuple):
        return Arguments(subject)
    if isinstance(subject, Mapping) and _are_parameters(function, subject):
        return Arguments((), subject)
    return Arguments((subject,))


def _signature(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a function, or of a module's forward; empty if unknown."""
    try:
        called = function.forward if isinstance(function, nn.Module) else function
        return inspect.signature(called).parameters
    except (TypeError, ValueError):
        return {}


def _parameter_names(function: Callable[..., Any]) -> list[str]:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, each in _signature(function).items() if each.kind in positional]


def _are_parameters(function: Callable[..., Any], names: Mapping[str, Any]) -> bool:
    parameters = _signature(function)
    return bool(names) and all(isinstance(n, str) and n in parameters for n in names)


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _leaves(each, (*path, key))
    elif isinstance(value, (list, tuple)):
        for i, each in enumerate(value):
            yield from _leaves(each, (*path, i))
    else:
        yield path, value


def _mapped(value: Any, path: Path, change: Callable[[Path, Any], Any]) -> Any:
    """Return a collection of the same type with changed leaves."""
    if isinstance(value, Mapping):
        return {key: _mapped(each, (*path, key), change) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_mapped(each, (*path, i), change) for i, each in enumerate(value)]
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*items)
        return type(value)(items)
    return change(path, value)


def modules_of(function: Callable[..., Any]) -> dict[str, nn.Module]:
    """Return the networks that a function calls, by the names it knows them by."""
    if isinstance(function, nn.Module):
        return {"network": function}
    found: dict[str, nn.Module] = {}
    for name, value in _values_of(function, set()):
        modules = value.items() if isinstance(value, dict) else [(name, value)]
        for key, module in modules:
            known = any(module is each for each in found.values())
            if isinstance(module, nn.Module) and not known:
                found[str(key).replace(".", "_")] = module
    return found


def _values_of(value: Any, seen: set[int], name: str = "network") -> Iterator[tuple[str, Any]]:
    """Yield what a function refers to, with the functions and objects that it calls.

    These are a partial function's arguments, a method's object and its attributes, the variables
    of enclosing functions, and global variables.
    """
    if id(value) in seen or isinstance(value, (type, types.ModuleType)):
        return
    seen.add(id(value))
    if isinstance(value, functools.partial):
        inner = [("function", value.func), *value.keywords.items()]
        inner += [(f"argument{i}", each) for i, each in enumerate(value.args)]
    elif isinstance(value, types.MethodType):
        inner = [(name, value.__self__), ("function", value.__func__)]
    elif isinstance(value, types.FunctionType):
        inner = [*_variables(value)]
    elif isinstance(value, nn.Module) or not hasattr(value, "__dict__"):
        yield name, value
        return
    else:
        inner = [*vars(value).items()]
    for each_name, each in inner:
        yield from _values_of(each, seen, each_name)


def _variables(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the variables of enclosing functions and the globals that a function refers to."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # the variable has no value yet
            yield name, cell.cell_contents
    for name in _global_names(function.__code__):
        if name in function.__globals__:
            yield name, function.__globals__[name]


def _global_names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def _name(function: Callable[..., Any]) -> str:
    if isinstance(function, nn.Module):
        return type(function).__name__
    return getattr(function, "__name__", type(function).__name__)
