"""Methods by name: look up, set parameters, and those that installed packages add."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType, NoneType
from typing import Any, get_args, get_type_hints

from neuroxai.core.errors import MethodError
from neuroxai.methods.base import Method
from neuroxai.methods.table import (
    ENTRY_POINTS,
    METHODS,
    Entry,
    check_layer_used,
    check_method_name,
    check_parameter_name,
)

_KINDS = {int: "a whole number", float: "a number", str: "a word", NoneType: "null"}


@cache
def all_methods() -> Mapping[str, type[Method]]:
    """Return ``METHODS`` and what installed packages add through ``neuroxai.methods``."""
    added = {}
    for entry in entry_points(group=ENTRY_POINTS):
        loaded = entry.load()
        if not (isinstance(loaded, type) and issubclass(loaded, Method)):
            raise MethodError(
                f"the entry point {entry.name!r} gives {loaded!r}, "
                "expected a subclass of neuroxai.methods.base.Method"
            )
        added[loaded.name] = loaded
    return MappingProxyType({**added, **METHODS})


def describe_method(method: type[Method]) -> Entry:
    """Return the listing of a method's class, as the table has it for the package's own.

    Examples
    --------
    >>> describe_method(METHODS["grad_cam"]).parameters
    'layer=auto'
    """
    defaults = method()
    parameters = {field.name: getattr(defaults, field.name) for field in dataclasses.fields(method)}
    return Entry(
        method.__name__,
        method.title,
        method.citation,
        " ".join(
            f"{name}={value.name if isinstance(value, Method) else value}"
            for name, value in parameters.items()
        ),
        method.signed,
    )


def make_method(name: str, parameters: Mapping[str, Any] | None = None) -> Method:
    """Return a method by its word, with some of its parameters set.

    Raises
    ------
    MethodError
        If the method or a parameter is unknown.

    Examples
    --------
    >>> make_method("integrated_gradients", {"steps": 8}).steps
    8
    """
    known = all_methods()
    check_method_name(name, known)
    method = known[name]
    hints = get_type_hints(method)
    fields = {field.name for field in dataclasses.fields(method)}
    given = dict(parameters or {})
    for parameter, value in given.items():
        check_parameter_name(name, parameter, fields)
        given[parameter] = _fitting(name, parameter, value, hints[parameter])
    return method(**given)


def _fitting(method: str, parameter: str, value: Any, hint: Any) -> Any:
    """Return a value of the parameter's type, or refuse it."""
    kinds = get_args(hint) or (hint,)
    if Method in kinds and isinstance(value, str):
        return make_method(value)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if (isinstance(value, bool) and bool not in kinds) or not isinstance(value, kinds):
        expected = " or ".join(_KINDS.get(kind, kind.__name__) for kind in kinds)
        raise MethodError(f"{method}: {parameter} is {value!r}, expected {expected}")
    return value


def make_methods(
    methods: str | Method | Iterable[str | Method], layer: str | None = None
) -> list[Method]:
    """Return methods given by word or ready-made; ``all`` is the whole table.

    ``layer`` is handed to those given by word that look into one; one that is ready-made keeps its
    own.

    Raises
    ------
    MethodError
        If there is none, one is unknown, two have the same name, or the layer would not be looked
        into.
    """
    if isinstance(methods, (str, Method)):
        methods = all_methods() if methods == "all" else [methods]
    made: list[Method] = []
    asked = list(methods)
    for place, method in enumerate(asked):
        if isinstance(method, str) and method in asked[:place]:
            continue
        if isinstance(method, Method):
            made.append(method)
            continue
        layered = layer and method in all_methods() and _has_layer(all_methods()[method])
        made.append(make_method(method, {"layer": layer} if layered else {}))
    if not made:
        raise MethodError("no method was asked for: name one, or 'all'")
    if layer:
        _check_layer(made, layer)
    for place, method in enumerate(made):
        if method.name in [other.name for other in made[:place]]:
            raise MethodError(
                f"{method.name} is asked for twice with different parameters, and results go by "
                "the method's name: ask one after the other"
            )
    return made


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
                f"{method.name} is made already: the layer {layer!r} would not reach it, it keeps "
                f"{own!r}; give it the layer when it is made"
            )
