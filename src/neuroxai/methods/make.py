"""Methods from their names and parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

from neuroxai.core.errors import MethodError
from neuroxai.methods.base import Method
from neuroxai.methods.installed import installed_methods
from neuroxai.methods.parameters import check_parameter, parameter_types
from neuroxai.methods.table import (
    METHODS,
    Entry,
    check_layer_used,
    check_method_name,
    check_parameter_name,
)


@cache
def all_methods() -> Mapping[str, type[Method]]:
    """Return ``METHODS`` and the methods of installed packages."""
    return MappingProxyType({**METHODS, **installed_methods().methods})


def describe_method(method: type[Method]) -> Entry:
    """Return the listing of a method's class, as the table has it for the package's own.

    Examples
    --------
    >>> describe_method(METHODS["grad_cam"]).parameters
    'layer=auto'
    """
    return Entry(
        method.__name__,
        method.title,
        method.citation,
        " ".join(map(_with_default, dataclasses.fields(method))),
        method.signed,
        method.on_request,
    )


def _with_default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    else:
        default = field.default
    if default is dataclasses.MISSING:
        return field.name
    return f"{field.name}={default.name if isinstance(default, Method) else default}"


def make_method(name: str, parameters: Mapping[str, Any] | None = None) -> Method:
    """Return a method by its name, with some of its parameters set.

    Raises
    ------
    MethodError
        If the method or a parameter is unknown, or a value does not fit its parameter.

    Examples
    --------
    >>> make_method("integrated_gradients", {"steps": 8}).steps
    8
    """
    known = all_methods()
    check_method_name(name, known)
    method = known[name]
    types = parameter_types(method)
    given = dict(parameters or {})
    for parameter, value in given.items():
        check_parameter_name(name, parameter, types)
        given[parameter] = _converted(name, parameter, value, types[parameter])
    return method(**given)


def _converted(method: str, parameter: str, value: Any, types: tuple[type, ...]) -> Any:
    """Return a value as its parameter takes it: a name of a method made, a number as a float."""
    if Method in types and isinstance(value, str):
        return make_method(value)
    check_parameter(method, parameter, value, types)
    return float(value) if float in types and type(value) is int else value


MethodsLike = (
    str | Method | type[Method] | Iterable[str | Method | type[Method]]
    | Mapping[str, Mapping[str, Any]]
)  # fmt: skip
"""``all``; a method by its name, as an object or as a class; several of them; or a mapping of names
to parameters."""


def make_methods(methods: MethodsLike, layer: str | None = None) -> list[Method]:
    """Return methods from names and methods.

    ``all`` stands for every known method but those that are computed on request only, as they take
    hundreds of passes: the perturbation methods.

    Parameters
    ----------
    methods
        Names, methods with their parameters set, method classes for the default parameters, or a
        mapping of names to parameters.
    layer
        The layer of those given by name that use one.

    Raises
    ------
    MethodError
        If no method is requested, one is unknown, two have the same name, or none uses the layer.

    Examples
    --------
    >>> [method.samples for method in make_methods({"smoothgrad": {"samples": 8}})]
    [8]
    """
    methods = _as_list(methods, layer)
    made: list[Method] = []
    for place, method in enumerate(methods):
        if isinstance(method, str) and method in methods[:place]:
            continue
        made.append(method if isinstance(method, Method) else _with_layer(method, {}, layer))
    if not made:
        raise MethodError("no method is requested: name one, or 'all'")
    if layer:
        _check_layer(made, layer)
    for place, method in enumerate(made):
        if method.name in [other.name for other in made[:place]]:
            raise MethodError(
                f"{method.name} is requested twice with different parameters, and results are "
                "stored by the method's name: request one at a time"
            )
    return made


def _as_list(methods: MethodsLike, layer: str | None) -> list[str | Method]:
    """Return names and methods, each class as a method and each entry of a mapping as a method."""
    if isinstance(methods, Mapping):
        return [_with_layer(name, parameters, layer) for name, parameters in methods.items()]
    if isinstance(methods, (str, Method, type)):
        methods = _all() if methods == "all" else [methods]
    if not isinstance(methods, Iterable):
        raise MethodError(
            f"methods is {methods!r}, expected names, methods, or a mapping of names to parameters"
        )
    found: list[str | Method] = []
    for each in methods:
        if isinstance(each, type) and issubclass(each, Method):
            found.append(each(**_layer_of(each, layer)))
        elif isinstance(each, (str, Method)):
            found.append(each)
        else:
            raise MethodError(f"{each!r} is not a method, expected a name, a method or its class")
    return found


def _all() -> list[str | Method | type[Method]]:
    return [name for name, method in all_methods().items() if not method.on_request]


def _with_layer(name: str, parameters: Mapping[str, Any] | None, layer: str | None) -> Method:
    """Return a method with its parameters, and with a layer if it uses one and has none yet."""
    if parameters is not None and not isinstance(parameters, Mapping):
        raise MethodError(
            f"{name}: parameters are {parameters!r}, expected a mapping, for example "
            f'{{"{name}": {{}}}}'
        )
    return make_method(name, {**_layer_of(all_methods().get(name), layer), **(parameters or {})})


def _layer_of(method: type[Method] | None, layer: str | None) -> dict[str, str]:
    """Return the parameter for a layer, if one is given and the method uses it."""
    return {"layer": layer} if layer and method is not None and _has_layer(method) else {}


def _has_layer(method: Method | type[Method]) -> bool:
    return "layer" in {field.name for field in dataclasses.fields(method)}


def _check_layer(methods: Sequence[Method], layer: str) -> None:
    """Raise if a layer is given but a requested method does not use it."""
    layered = [method for method in methods if _has_layer(method)]
    known = [name for name, method in all_methods().items() if _has_layer(method)]
    known += [method.name for method in layered]
    check_layer_used(layer, [method.name for method in methods], known)
    for method in layered:
        own = getattr(method, "layer", None)
        if own != layer:
            raise MethodError(
                f"{method.name} cannot take layer {layer!r}, because it was made with layer "
                f"{own!r}: make it with the layer, or leave layer= out"
            )
