"""Schemas: one-sentence errors, against sentences written by hand."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, Self

import pytest
from pydantic import Field, ValidationError, field_validator, model_validator

from neuroxai.core.errors import CaseError, NeuroXAIError
from neuroxai.files.schema import List, Schema, Table, Text


class Coil(Schema):
    channels: Annotated[int, Field(gt=0)]
    vendor: Literal["A", "B", "C"] = "A"
    gain: Annotated[float, Field(ge=0, le=1)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.vendor == "C" and self.channels > 8:
            raise ValueError("vendor C has at most 8 channels")
        return self


class Scanner(Schema):
    title: ClassVar[str] = "scanner"
    error: ClassVar[type[NeuroXAIError]] = CaseError

    name: Text = Field(examples=["north"])
    tesla: Annotated[float, Field(gt=0, lt=20)]
    bore: Annotated[float, Field(gt=0, le=1)] = 0.7
    year: Annotated[int, Field(ge=1980, lt=2100)] = 2020
    sequences: List[tuple[Text, ...]] = Field(default=("T1",), min_length=1)
    voxel: List[tuple[float, float, float]] = (1.0, 1.0, 1.0)
    research: bool = False
    coil: Coil | None = None
    coils: List[tuple[Coil, ...]] = ()
    notes: Table = Field(default_factory=dict)

    @field_validator("voxel")
    @classmethod
    def _ordered(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if list(edges) != sorted(edges):
            raise ValueError("ascending edges")
        return edges


VALID: dict[str, Any] = {"name": "n", "tesla": 3}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"nam": 1}, "unknown key 'nam'; did you mean 'name'?"),
        ({7: 1}, "unknown key '7'; known: bore, coil, coils, name, "),
        ({"coil": {"channel": 1}}, "unknown key 'coil.channel'; did you mean 'channels'?"),
        ({"coils": [{"channels": 2}, {}]}, "missing required key 'coils[1].channels'; add it"),
        ({"name": 3}, "name is 3, expected text that is not empty"),
        ({"name": ""}, "name is '', expected text that is not empty"),
        ({"tesla": "3"}, "tesla is '3', expected a number above 0 and below 20"),
        ({"tesla": 20}, "tesla is 20, expected a number above 0 and below 20"),
        ({"tesla": math.nan}, "tesla is nan, expected a number above 0 and below 20"),
        ({"tesla": True}, "tesla is True, expected a number above 0 and below 20"),
        ({"bore": 2}, "bore is 2, expected a number above 0 and at most 1"),
        ({"year": 1979}, "year is 1979, expected a whole number from 1980 to below 2100"),
        ({"year": 2000.0}, "year is 2000.0, expected a whole number from 1980 to below 2100"),
        ({"sequences": []}, "sequences is [], expected a list of names, not empty"),
        ({"sequences": "T1"}, "sequences is 'T1', expected a list of names, not empty"),
        ({"sequences": ["T1", 2]}, "sequences[1] is 2, expected text that is not empty"),
        ({"voxel": [1, 1]}, "voxel is [1, 1], expected a list of 3 numbers"),
        ({"voxel": (1, 1, 1, 1)}, "voxel is [1, 1, 1, 1], expected a list of 3 numbers"),
        ({"voxel": [1, None, 1]}, "voxel[1] is None, expected a number"),
        ({"voxel": [2, 1, 1]}, "voxel is [2, 1, 1], expected ascending edges"),
        ({"research": 1}, "research is 1, expected true or false"),
        ({"coil": []}, "coil is [], expected a mapping of keys to values, or null"),
        ({"coil": {"channels": 0}}, "coil.channels is 0, expected a whole number above 0"),
        (
            {"coil": {"channels": 1, "vendor": "D"}},
            "coil.vendor is 'D', expected 'A', 'B' or 'C'",
        ),
        (
            {"coil": {"channels": 1, "gain": 2}},
            "coil.gain is 2, expected a number from 0 to 1, or null",
        ),
        (
            {"coil": {"channels": 9, "vendor": "C"}},
            "coil: vendor C has at most 8 channels",
        ),
        ({"notes": {"a": {"b": [1, math.inf]}}}, "notes.a.b[1] is inf, expected text, a finite "),
        ({"notes": {"list": {"dict": math.nan}}}, "notes.list.dict is nan, expected text, a fin"),
        ({"notes": {3: 4}}, "notes has the key 3, expected text"),
        ({"notes": {"a": object}}, "notes.a is <class 'object'>, expected text, a finite number, "),
        ({"name": "x" * 5000, "tesla": 0}, "tesla is 0, "),
        ({"tesla": "x" * 5000}, f"tesla is '{'x' * 119}…, expected a number"),
    ],
)
def test_errors_are_one_sentence(change: dict[Any, Any], sentence: str) -> None:
    with pytest.raises(CaseError) as caught:
        Scanner.from_dict(VALID | change, source="scanner.json")
    assert str(caught.value).startswith(f"scanner.json: {sentence}")
    assert "\n" not in str(caught.value)


def test_missing_keys_have_an_example() -> None:
    with pytest.raises(CaseError) as caught:
        Scanner.from_dict({"tesla": 3})
    assert str(caught.value) == (
        'scanner: missing required key \'name\'; add it, for example "name": "north"'
    )


@pytest.mark.parametrize("content", [[], "text", None, 3])
def test_content_that_is_not_a_mapping(content: object) -> None:
    with pytest.raises(CaseError, match=r"scanner: the content is .*, expected a mapping"):
        Scanner.from_dict(content)


def test_replace_validates_the_copy() -> None:
    scanner = Scanner.from_dict(VALID | {"coil": {"channels": 2}})
    other = scanner.replace(tesla=7)
    assert (scanner.tesla, other.tesla, other.coil) == (3, 7, scanner.coil)
    with pytest.raises(CaseError, match="scanner: tesla is -1, expected a number above 0"):
        scanner.replace(tesla=-1)
    with pytest.raises(CaseError, match="unknown key 'tesl'; did you mean 'tesla'"):
        scanner.replace(tesl=7)


def test_schemas_are_immutable_and_survive_json() -> None:
    scanner = Scanner.from_dict(VALID | {"coil": {"channels": 2}, "notes": {"a": [1, None]}})
    assert Scanner.from_dict(scanner.to_dict()) == scanner
    with pytest.raises(ValidationError, match="frozen"):
        scanner.tesla = 7
