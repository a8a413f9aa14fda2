"""Methods that installed packages add."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType

from neuroxai.methods.base import Method
from neuroxai.methods.table import ENTRY_POINTS, TABLE


@dataclass(frozen=True)
class Installed:
    """The methods of installed packages.

    Attributes
    ----------
    methods
        Name to class.
    unavailable
        Name of an entry point that cannot be used to the reason, a full sentence.
    """

    methods: Mapping[str, type[Method]]
    unavailable: Mapping[str, str]


@cache
def installed_methods() -> Installed:
    """Return the methods in the entry-point group ``neuroxai.methods``.

    An entry point that cannot be used is left out with a warning; the others are not affected.
    """
    methods: dict[str, type[Method]] = {}
    unavailable: dict[str, str] = {}
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            loaded = entry.load()
        except Exception as error:  # whatever the package's own code raises
            unavailable[entry.name] = _sentence(entry, f"cannot be imported: {error!r}")
            continue
        fault = _fault(loaded, methods)
        if fault is None:
            methods[loaded.name] = loaded
        else:
            unavailable[entry.name] = _sentence(entry, fault)
    for sentence in unavailable.values():
        warnings.warn(sentence, stacklevel=2)
    return Installed(MappingProxyType(methods), MappingProxyType(unavailable))


def _fault(loaded: object, known: Mapping[str, type[Method]]) -> str | None:
    """Return why an object is not a usable method, None if it is."""
    if not (isinstance(loaded, type) and issubclass(loaded, Method)):
        return f"gives {loaded!r}, expected a subclass of neuroxai.methods.base.Method"
    if inspect.isabstract(loaded):
        missing = ", ".join(sorted(loaded.__abstractmethods__))
        return f"gives the abstract class {loaded.__name__}: implement {missing}"
    missing = ", ".join(each for each in ("name", "title", "citation") if not hasattr(loaded, each))
    if missing:
        return f"gives {loaded.__name__} without {missing}: set them as class attributes"
    if loaded.name in TABLE or loaded.name in known:
        return f"gives a method named {loaded.name!r}, a name that is taken: rename it"
    return None


def _sentence(entry: EntryPoint, fault: str) -> str:
    package = entry.dist.name if entry.dist is not None else entry.value
    return f"the method {entry.name!r} of the package {package} is unavailable: it {fault}"
