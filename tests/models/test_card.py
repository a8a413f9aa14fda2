"""The model card: round trip and validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from neuroxai.core.errors import ModelError
from neuroxai.models.card import USE, Card, read_card

CARD = Card(
    name="näme",
    architecture="deepseg",
    arguments={"in_channels": 2},
    task="segmentation",
    modalities=("FLAIR", "T1ce"),
    classes=("background", "NCR", "ET"),
    regions={"TC": ("NCR", "ET"), "ET": ("ET",)},
    activation="softmax",
    preprocessing={"intensity": "zscore", "size": [4, 5, 6]},
    training={"steps": 3},
    metrics={"dice": {"TC": 0.5}},
    weights_sha256="ab" * 32,
    weights_dtype="float16",
)


def test_round_trip() -> None:
    assert Card.from_json(CARD.to_json()) == CARD
    assert json.loads(CARD.to_json())["use"] == USE == "research use only, not for clinical use"


REQUIRED = [key for key in Card.model_fields if key != "postprocessing"]


def test_postprocessing_can_be_left_out() -> None:
    table = json.loads(CARD.to_json())
    del table["postprocessing"]
    assert Card.from_json(json.dumps(table)).smallest_enhancement_mm3 == 0.0


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_key_is_an_error(key: str) -> None:
    table = json.loads(CARD.to_json())
    del table[key]
    with pytest.raises(ModelError, match=rf"here/card.json: missing required key '{key}'"):
        Card.from_json(json.dumps(table), source="here/card.json")


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("modalitys", ["T1"], "did you mean 'modalities'"),
        ("task", "regression", "expected 'segmentation' or 'classification'"),
        ("activation", "relu", "expected 'softmax' or 'sigmoid'"),
        ("weights_dtype", "int8", "expected 'float32' or 'float16'"),
        ("format", 2, "format is 2, expected 1"),
        ("modalities", "T1", "expected a list of names, not empty"),
        ("modalities", [], "expected a list of names, not empty"),
        ("modalities", [""], r"modalities\[0\] is '', expected text that is not empty"),
        ("classes", ["background", 3], r"classes\[1\] is 3, expected text"),
        ("classes", ["ET", "NCR", "ET"], "expected each class once"),
        ("regions", {"WT": ["ED"]}, r"regions\.WT has the unknown class 'ED'"),
        ("regions", [], "expected a mapping"),
        ("regions", {"WT": "ET"}, r"regions\.WT is 'ET', expected a list of names"),
        ("postprocessing", [], "expected a mapping"),
        ("postprocessing", {"smallest_enhancement": 3}, "did you mean 'smallest_enhancement_mm3'"),
        (
            "postprocessing",
            {"smallest_enhancement_mm3": "200"},
            "expected a number from 0 to below",
        ),
        ("postprocessing", {"smallest_enhancement_mm3": float("nan")}, "expected a number from"),
        ("postprocessing", {"smallest_enhancement_mm3": -1}, "expected a number from"),
        ("postprocessing", {"smallest_enhancement_mm3": 1e9}, "to below 1000000000"),
        ("arguments", None, "expected a mapping"),
        ("name", 5, "expected text"),
        ("use", "", "expected text that is not empty"),
        ("weights_sha256", "AB" * 32, "expected 64 lowercase hexadecimal digits"),
        ("weights_sha256", "", "without a hash"),
    ],
)
def test_invalid_values_are_named(key: str, value: Any, word: str) -> None:
    table = json.loads(CARD.to_json()) | {key: value}
    with pytest.raises(ModelError, match=word) as caught:
        Card.from_json(json.dumps(table), source="x/card.json")
    assert str(caught.value).startswith("x/card.json: ")
    assert "\n" not in str(caught.value)


def test_a_card_has_a_json_schema() -> None:
    schema = Card.model_json_schema()
    assert schema["additionalProperties"] is False
    assert schema["properties"]["task"]["enum"] == ["segmentation", "classification"]
    assert all(
        entry.get("description") or "$ref" in entry for entry in schema["properties"].values()
    )
    table = json.loads(CARD.to_json())
    assert set(table) == set(schema["properties"])


def test_cards_are_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        CARD.name = "other"
    other = CARD.replace(name="other")
    assert (other.name, CARD.name) == ("other", "näme")
    with pytest.raises(ModelError, match="card: activation is 'relu'"):
        CARD.replace(activation="relu")


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '"card"', "1e999"])
def test_text_that_is_not_a_card(text: str) -> None:
    with pytest.raises(ModelError, match=r"^c\.json: "):
        Card.from_json(text, source="c.json")


def test_files_that_are_not_cards(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    with pytest.raises(ModelError, match=r"no such file; .* model\.safetensors"):
        read_card(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="not text in UTF-8"):
        read_card(path)
    path.write_bytes(b" " * 1_000_001)
    with pytest.raises(ModelError, match="at most 1 MB"):
        read_card(path)
    with pytest.raises(ModelError, match="cannot be read"):
        read_card(tmp_path)
