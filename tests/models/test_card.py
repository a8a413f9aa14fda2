"""The card: a strict round trip."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

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


EARLIER = [e.name for e in dataclasses.fields(Card) if e.name != "postprocessing"]


def test_a_card_of_before_there_was_postprocessing_has_none() -> None:
    table = json.loads(CARD.to_json())
    del table["postprocessing"]
    assert Card.from_json(json.dumps(table)).smallest_enhancement_mm3 == 0.0


@pytest.mark.parametrize("key", EARLIER)
def test_every_key_must_be_there(key: str) -> None:
    table = json.loads(CARD.to_json())
    del table[key]
    with pytest.raises(ModelError, match=rf"here/card.json: the key '{key}' is missing"):
        Card.from_json(json.dumps(table), source="here/card.json")


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("modalitys", ["T1"], "did you mean 'modalities'"),
        ("task", "regression", "segmentation or classification"),
        ("activation", "relu", "softmax or sigmoid"),
        ("weights_dtype", "int8", "float32 or float16"),
        ("format", 2, "this version reads 1"),
        ("modalities", "T1", "a list of names"),
        ("modalities", [], "empty"),
        ("classes", ["background", 3], "a list of names"),
        ("classes", ["ET", "NCR", "ET"], "twice"),
        ("regions", {"WT": ["ED"]}, "names the class 'ED'"),
        ("regions", [], "a table"),
        ("postprocessing", [], "a table"),
        ("postprocessing", {"smallest_enhancement": 3}, "did you mean 'smallest_enhancement_mm3'"),
        ("postprocessing", {"smallest_enhancement_mm3": "200"}, "expected cubic mm"),
        ("postprocessing", {"smallest_enhancement_mm3": float("nan")}, "expected cubic mm"),
        ("arguments", None, "a table"),
        ("name", 5, "expected text"),
        ("use", "", "expected text"),
        ("weights_sha256", "AB" * 32, "64 hexadecimal digits"),
        ("weights_sha256", "", "without a hash"),
    ],
)
def test_what_is_wrong_is_named(key: str, value: Any, word: str) -> None:
    table = json.loads(CARD.to_json()) | {key: value}
    with pytest.raises(ModelError, match=word) as caught:
        Card.from_json(json.dumps(table), source="x/card.json")
    assert str(caught.value).startswith("x/card.json: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '"card"', "1e999"])
def test_what_is_no_card_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match=r"^c\.json: "):
        Card.from_json(text, source="c.json")


def test_files_that_cannot_be_cards_are_refused(tmp_path: Path) -> None:
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
