"""Parameters are checked against their annotations, postponed or not."""

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

import pytest
import torch
from torch import Tensor

from neuroxai.core.errors import MethodError
from neuroxai.core.explanation import Attribution
from neuroxai.core.probe.probe import Probe
from neuroxai.methods import METHODS
from neuroxai.methods.base import Method
from neuroxai.methods.make import make_methods
from neuroxai.methods.parameters import parameter_types

if TYPE_CHECKING:
    from collections.abc import Hashable

# Without "from __future__ import annotations", as a package of somebody else's may be.


@dataclasses.dataclass(frozen=True)
class Foreign(Method):
    name: ClassVar[str] = "foreign"
    title: ClassVar[str] = "Foreign"
    citation: ClassVar[str] = "arXiv:0000.00000"

    count: int = 3
    scale: float = 1
    stop: float | None = None
    word: str = "one"
    axes: tuple[int, ...] = ()
    mode: Literal["a", "b"] = "a"

    def attribute(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Attribution:
        return Attribution(x)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"count": 2.5}, "count is 2.5, expected a whole number"),
        ({"count": True}, "count is True, expected a whole number"),
        ({"scale": float("nan")}, "scale is nan, expected a number"),
        ({"scale": "1"}, "scale is '1', expected a number"),
        ({"stop": "never"}, "stop is 'never', expected a number or null"),
        ({"word": 3}, "word is 3, expected a text"),
        ({"axes": 3}, "axes is 3, expected tuple"),
    ],
    ids=str,
)
def test_a_method_without_postponed_annotations_is_checked(
    parameters: dict[str, object], expected: str
) -> None:
    with pytest.raises(MethodError, match=f"^foreign: {expected}$"):
        Foreign(**parameters)  # type: ignore[arg-type]


def test_values_that_fit_are_taken() -> None:
    made = Foreign(count=4, scale=2, stop=0.5, axes=(1, 2), mode="b")
    assert made.parameters()["scale"] == 2
    assert parameter_types(Foreign)["mode"] == ()


def test_an_annotation_that_cannot_be_resolved_is_named() -> None:
    @dataclasses.dataclass(frozen=True)
    class Unresolved(Foreign):
        key: "Hashable" = 1

    with pytest.raises(MethodError, match=r"Unresolved has an annotation .*'Hashable'"):
        Unresolved()


@pytest.mark.parametrize("name", METHODS)
def test_the_defaults_fit(name: str) -> None:
    types = parameter_types(METHODS[name])
    assert set(types) == {field.name for field in dataclasses.fields(METHODS[name])}
    assert all(types.values())


def test_methods_from_a_mapping_of_parameters_and_from_classes() -> None:
    made = make_methods({"smoothgrad": {"samples": 3}, "grad_cam": {}}, layer="encoder")
    assert [method.parameters() for method in made] == [
        METHODS["smoothgrad"](samples=3).parameters(),  # type: ignore[call-arg]
        METHODS["grad_cam"](layer="encoder").parameters(),  # type: ignore[call-arg]
    ]
    assert make_methods(METHODS["smoothgrad"]) == make_methods("smoothgrad")
    assert make_methods([METHODS["layercam"], "smoothgrad"], "a") == make_methods(
        ["layercam", "smoothgrad"], "a"
    )
    with pytest.raises(MethodError, match="smoothgrad: parameters are 8, expected a mapping"):
        make_methods({"smoothgrad": 8})
    with pytest.raises(MethodError, match="smoothgrad has no parameter 'sample'"):
        make_methods({"smoothgrad": {"sample": 8}})
    for wrong in (5, [5], [dict]):
        with pytest.raises(MethodError, match="expected"):
            make_methods(wrong)  # type: ignore[arg-type]
