"""Methods of installed packages: one that cannot be used does not affect the others."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import ClassVar

import pytest

from neuroxai.core.errors import MethodError
from neuroxai.methods import METHODS, all_methods, make_method, make_methods
from neuroxai.methods.installed import installed_methods
from neuroxai.methods.make import describe_method
from neuroxai.methods.table import all_entries
from neuroxai.methods.vanilla_gradient import VanillaGradient

MODULE = """
from dataclasses import dataclass
from typing import ClassVar
from neuroxai.methods.base import Method
from neuroxai.methods.vanilla_gradient import VanillaGradient

@dataclass(frozen=True)
class Good(VanillaGradient):
    name: ClassVar[str] = "good"
    title: ClassVar[str] = "Good"
    count: int = 2

@dataclass(frozen=True)
class Taken(VanillaGradient):
    name: ClassVar[str] = "grad_cam"

class Unfinished(Method):
    name = "unfinished"
"""

UNAVAILABLE = {
    "missing_module": "it cannot be imported: ModuleNotFoundError",
    "missing_class": "it cannot be imported: AttributeError",
    "failing": "it cannot be imported: ZeroDivisionError",
    "not_a_method": "it gives <class 'int'>, expected a subclass of",
    "taken": "it gives a method named 'grad_cam', a name that is taken",
    "unfinished": "it gives the abstract class Unfinished: implement attribute",
}


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "foreign_methods.py").write_text(MODULE)
    (tmp_path / "foreign_failing.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    values = {
        "missing_module": "foreign_nowhere:Method",
        "missing_class": "foreign_methods:Nowhere",
        "failing": "foreign_failing:Method",
        "not_a_method": "builtins:int",
        "good": "foreign_methods:Good",
        "taken": "foreign_methods:Taken",
        "unfinished": "foreign_methods:Unfinished",
    }
    entries = EntryPoints(
        EntryPoint(name, value, "neuroxai.methods") for name, value in values.items()
    )
    for module in ("installed", "table"):
        monkeypatch.setattr(f"neuroxai.methods.{module}.entry_points", lambda group: entries)
    for cached in (installed_methods, all_methods):
        cached.cache_clear()
    yield
    for cached in (installed_methods, all_methods):
        cached.cache_clear()
    for name in ("foreign_methods", "foreign_failing"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("packages")
def test_an_entry_point_that_cannot_be_used_is_left_out_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="is unavailable") as warned:
        known = all_methods()
    assert list(known) == [*METHODS, "good"]
    assert {each.message.args[0].split("'")[1] for each in warned} == set(UNAVAILABLE)  # type: ignore[union-attr]
    assert make_method("good", {"count": 3}).parameters() == {"count": 3}
    assert list(all_entries()) == [*METHODS, "good"]
    assert all_entries()["good"].parameters == "count=2"
    assert "good" in [method.name for method in make_methods("all")]
    for name, reason in UNAVAILABLE.items():
        with pytest.raises(MethodError, match=f"the method '{name}' .* is unavailable: {reason}"):
            make_method(name)
    with pytest.raises(MethodError, match="did you mean 'good'"):
        make_method("goood")


def test_a_parameter_without_a_default_is_listed_by_its_name() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Needs(VanillaGradient):
        name: ClassVar[str] = "needs"
        count: int

    assert describe_method(Needs).parameters == "count"
