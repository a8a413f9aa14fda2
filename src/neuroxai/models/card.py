"""The card beside a network's weights: all that is needed to use it rightly."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuroxai.core.errors import ModelError, suggestion
from neuroxai.models.channel_names import regions_of
from neuroxai.models.config_data import read_json
from neuroxai.models.text_file import read_text

USE = "research use only, not for clinical use"
FORMAT = 1
SMALLEST_ENHANCEMENT = "smallest_enhancement_mm3"
_LARGEST = 1_000_000
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Card:
    """What a checkpoint says of itself; ``card.json`` is this and nothing else.

    Attributes
    ----------
    name
        The network's name.
    architecture, arguments
        A key of ``models.checkpoint.ARCHITECTURES`` and the keyword arguments to build it with.
    task
        ``segmentation`` or ``classification``.
    modalities
        Names in the order of the input's channels; repeats are allowed.
    classes
        Names in the order of the output's channels.
    regions
        Region name to the names of the classes it unites; empty for a classifier.
    activation
        What turns logits into probabilities: ``softmax`` or ``sigmoid``.
    preprocessing
        The preprocessing the network was trained with, as ``data.preprocessing`` reads it.
    postprocessing
        What is done with its answer: ``smallest_enhancement_mm3``, or nothing. A card of before
        there was this key may lack it.
    training, metrics
        What it was trained on and how; what was measured on cases held out.
    weights_sha256, weights_dtype
        Hash of the weight file; ``float32`` or ``float16`` on disk.
    license, use
        Terms of the weights.
    format
        Version of this list.
    """

    name: str
    architecture: str
    arguments: Mapping[str, Any]
    task: str
    modalities: tuple[str, ...]
    classes: tuple[str, ...]
    activation: str
    regions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    postprocessing: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""
    weights_dtype: str = "float32"
    license: str = "Apache-2.0"
    use: str = USE
    format: int = FORMAT

    def __post_init__(self) -> None:
        _check(self, "card")

    @property
    def smallest_enhancement_mm3(self) -> float:
        """Cubic millimeters of enhancing tumor in all, below which it is called necrosis."""
        return float(self.postprocessing.get(SMALLEST_ENHANCEMENT, 0.0))

    def to_json(self) -> str:
        """Return the text of ``card.json``."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str | Path = "card.json") -> Card:
        """Read the text of a ``card.json``; every key must be there and known.

        Raises
        ------
        ModelError
            Naming ``source`` and the key that is missing, unknown or of the wrong kind.

        Examples
        --------
        >>> card = Card(name="n", architecture="deepseg", arguments={}, task="segmentation",
        ...             modalities=("T1",), classes=("background", "ET"), activation="softmax",
        ...             weights_sha256="0" * 64)
        >>> Card.from_json(card.to_json()) == card
        True
        """
        if len(text) > _LARGEST:
            raise ModelError(
                f"{source}: a card of {len(text)} characters, expected under a million"
            )
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{source}: not valid JSON ({error})") from error
        if not isinstance(found, dict):
            raise ModelError(f"{source}: holds a {type(found).__name__}, expected a JSON object")
        found.setdefault("postprocessing", {})
        known = [entry.name for entry in dataclasses.fields(cls)]
        for key in found:
            if key not in known:
                raise ModelError(f"{source}: unknown key {key!r}; {suggestion(key, known)}")
        for key in known:
            if key not in found:
                raise ModelError(f"{source}: the key {key!r} is missing; write the card anew")
        for key in ("modalities", "classes"):
            found[key] = _names(found[key], key, source)
        if isinstance(found["regions"], dict):
            found["regions"] = {
                name: _names(members, f"regions.{name}", source)
                for name, members in found["regions"].items()
            }
        card = _unchecked(found)
        _check(card, source)
        if not _SHA256.fullmatch(card.weights_sha256):
            raise ModelError(
                f"{source}: weights_sha256 is {card.weights_sha256!r}, "
                "expected 64 hexadecimal digits: weights without a hash are not loaded"
            )
        return card


def read_card(path: Path) -> Card:
    """Read ``card.json`` at ``path``.

    Raises
    ------
    ModelError
        If the file is missing, unreadable, too large or not a card.
    """
    text = read_text(
        path,
        largest=_LARGEST,
        missing="no such file; beside model.safetensors it says what the network expects and "
        "returns",
    )
    return Card.from_json(text, source=path)


def read_description(path: Path, *, architecture: str) -> tuple[Card, int | str | None]:
    """Read what a network of the user's own expects and returns, and which of its outputs counts.

    A card of which only ``task``, ``modalities``, ``classes``, ``activation`` and
    ``preprocessing`` must be there; the weights need no hash, and the tumor's regions follow from
    the classes where they bear its names. ``output`` is the index or key of
    the one that counts, for a network that returns several.

    Raises
    ------
    ModelError
        Naming ``path`` and the key that is missing, unknown or of the wrong kind.
    """
    found = read_json(path)
    for key in ("task", "modalities", "classes", "activation", "preprocessing"):
        if key not in found:
            raise ModelError(f"{path}: the key {key!r} is missing; say it")
    output = found.pop("output", None)
    if isinstance(output, bool) or not isinstance(output, int | str | None):
        raise ModelError(f"{path}: output is {output!r}, expected an index or a key")
    classes, activation = found["classes"], found["activation"]
    if "regions" not in found and found["task"] == "segmentation" and isinstance(classes, list):
        known = regions_of([name for name in classes if isinstance(name, str)], str(activation))
        found["regions"] = {name: list(members) for name, members in known.items()}
    whole: dict[str, Any] = {
        "name": architecture.rpartition(":")[2], "arguments": {}, "regions": {}, "training": {},
        "metrics": {}, "weights_sha256": "0" * 64, "weights_dtype": "float32",
        "license": "unknown", "use": USE, "format": FORMAT,
        **found, "architecture": architecture,
    }  # fmt: skip
    return Card.from_json(json.dumps(whole), source=path), output


def _unchecked(found: dict[str, Any]) -> Card:
    """Build a card without its own check, so that errors name the file and not just "card"."""
    card = object.__new__(Card)
    for key, value in found.items():
        object.__setattr__(card, key, value)
    return card


def _names(value: object, key: str, source: str | Path) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise ModelError(f"{source}: {key} is {value!r}, expected a list of names")
    return tuple(value)


def _check(card: Card, source: str | Path) -> None:
    """Hold a card to its types and to itself."""
    for key in ("name", "architecture", "task", "activation", "weights_sha256", "weights_dtype"):
        if not isinstance(getattr(card, key), str):
            raise ModelError(f"{source}: {key} is {getattr(card, key)!r}, expected text")
    for key in ("license", "use"):
        if not isinstance(getattr(card, key), str) or not getattr(card, key):
            raise ModelError(f"{source}: {key} is {getattr(card, key)!r}, expected text")
    for key in ("arguments", "regions", "preprocessing", "postprocessing", "training", "metrics"):
        if not isinstance(getattr(card, key), Mapping):
            raise ModelError(f"{source}: {key} is {getattr(card, key)!r}, expected a table")
    for key, allowed in {
        "task": ("segmentation", "classification"),
        "activation": ("softmax", "sigmoid"),
        "weights_dtype": ("float32", "float16"),
    }.items():
        if getattr(card, key) not in allowed:
            raise ModelError(
                f"{source}: {key} is {getattr(card, key)!r}, expected {' or '.join(allowed)}"
            )
    _check_postprocessing(card, source)
    if card.format != FORMAT:
        raise ModelError(f"{source}: format is {card.format!r}, this version reads {FORMAT}")
    for key in ("modalities", "classes"):
        if not getattr(card, key):
            raise ModelError(f"{source}: {key} is empty, expected at least one name")
    if len(set(card.classes)) != len(card.classes):
        raise ModelError(f"{source}: classes {card.classes!r} name one class twice")
    for region, members in card.regions.items():
        for member in members:
            if member not in card.classes:
                raise ModelError(
                    f"{source}: regions.{region} names the class {member!r}; "
                    f"{suggestion(member, card.classes)}"
                )


def _check_postprocessing(card: Card, source: str | Path) -> None:
    for key, value in card.postprocessing.items():
        if key != SMALLEST_ENHANCEMENT:
            raise ModelError(
                f"{source}: postprocessing has the key {key!r}; "
                f"{suggestion(key, [SMALLEST_ENHANCEMENT])}"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
            raise ModelError(f"{source}: postprocessing.{key} is {value!r}, expected cubic mm")
