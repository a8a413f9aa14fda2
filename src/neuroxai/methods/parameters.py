"""Types of a method's parameters, from the annotations of its fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from math import isfinite
from numbers import Integral, Real
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from neuroxai.core.errors import MethodError

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text",
          NoneType: "null"}  # fmt: skip


@cache
def parameter_types(method: type[Any]) -> Mapping[str, tuple[type, ...]]:
    """Return the types that each parameter of a method accepts, none where any is accepted.

    Annotations are resolved, whether or not the module of the method postpones them.

    Raises
    ------
    MethodError
        If an annotation names something that does not exist at run time.

    Examples
    --------
    >>> from neuroxai.methods import METHODS
    >>> parameter_types(METHODS["smoothgrad"])["tolerance"]
    (<class 'float'>, <class 'NoneType'>)
    """
    try:
        hints = get_type_hints(method)
    except NameError as error:
        raise MethodError(
            f"the method {method.__name__} has an annotation that cannot be resolved ({error}): "
            "import its names outside of 'if TYPE_CHECKING'"
        ) from error
    fields = dataclasses.fields(method)
    return MappingProxyType({field.name: _accepted(hints[field.name]) for field in fields})


def check_parameter(method: str, name: str, value: object, types: tuple[type, ...]) -> None:
    """Raise if a value does not have one of the types of a parameter, or is not finite.

    Raises
    ------
    MethodError
        Naming the value and what was expected.

    Examples
    --------
    >>> check_parameter("smoothgrad", "samples", 2.5, (int,))
    Traceback (most recent call last):
    ...
    neuroxai.core.errors.MethodError: smoothgrad: samples is 2.5, expected a whole number
    """
    if types and not any(_is_a(value, kind) for kind in types):
        expected = " or ".join(_WORDS.get(kind, kind.__name__) for kind in types)
        raise MethodError(f"{method}: {name} is {value!r}, expected {expected}")


def _accepted(hint: Any) -> tuple[type, ...]:
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    classes = [get_origin(kind) or kind for kind in kinds]
    return tuple(classes) if all(isinstance(kind, type) for kind in classes) else ()


def _is_a(value: object, kind: type) -> bool:
    if isinstance(value, bool):
        return kind in (bool, object)
    if kind is int:
        return isinstance(value, Integral)
    if kind is float:
        return isinstance(value, Real) and isfinite(value)
    return isinstance(value, kind)
