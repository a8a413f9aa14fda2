"""The model card: what a network expects, what it returns, and how it was trained."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from neuroxai.core.errors import ModelError, suggestion
from neuroxai.files.schema import List, Schema, Text
from neuroxai.models.channel_names import regions_of
from neuroxai.models.config_data import read_json
from neuroxai.models.placeholders import refuse_placeholders
from neuroxai.models.text_file import read_text

USE = "research use only, not for clinical use"
_SHA256 = re.compile("[0-9a-f]{64}")
_LARGEST = 1_000_000
"""Bytes of a card; the shipped one, with eighteen trainings, has 170 kB."""

Names = List[tuple[Text, ...]]


class Postprocessing(Schema):
    """Rules applied to a segmentation after the network."""

    smallest_enhancement_mm3: float = Field(default=0.0, ge=0, lt=1e9)
    """Smallest total volume of enhancing tumor in mm³; less is relabeled as necrosis."""
    label_numbers: List[tuple[Annotated[int, Field(gt=0)], ...]] = ()
    """Number of each overlapping class in the label file, where later classes overwrite earlier
    ones (nnU-Net's ``regions_class_order``); empty: the class with the largest logit."""


class Card(Schema):
    """Content of ``card.json``, stored next to a network's weights.

    Examples
    --------
    >>> card = Card(name="n", architecture="deepseg", arguments={}, task="segmentation",
    ...             modalities=("T1",), classes=("background", "ET"), activation="softmax",
    ...             weights_sha256="0" * 64)
    >>> Card.from_json(card.to_json()) == card
    True
    """

    title: ClassVar[str] = "card"

    name: str
    """Name of the network."""
    architecture: str
    """A key of ``models.checkpoint.ARCHITECTURES``."""
    arguments: Mapping[str, Any]
    """Keyword arguments of the architecture."""
    task: Literal["segmentation", "classification"] = Field(examples=["segmentation"])
    """What the network does."""
    modalities: Names = Field(min_length=1, examples=[["T1", "FLAIR"]])
    """Names of the input channels in order; a name may occur more than once."""
    classes: Names = Field(min_length=1, examples=[["background", "ET"]])
    """Names of the output channels in order."""
    activation: Literal["softmax", "sigmoid"] = Field(examples=["softmax"])
    """Function from logits to probabilities: ``softmax`` for exclusive classes, ``sigmoid`` for
    overlapping ones."""
    regions: Mapping[str, Names] = Field(default_factory=dict)
    """Per region the names of its classes; empty for a classifier."""
    preprocessing: Mapping[str, Any] = Field(
        default_factory=dict, examples=[{"modalities": ["T1", "FLAIR"], "intensity": "zscore"}]
    )
    """Recipe that the network was trained with; see ``data.preprocessing``."""
    postprocessing: Postprocessing = Postprocessing()
    """Rules applied to the output."""
    training: Mapping[str, Any] = Field(default_factory=dict)
    """Data and settings of the training."""
    metrics: Mapping[str, Any] = Field(default_factory=dict)
    """Results on held-out cases."""
    weights_sha256: str = Field(default="", json_schema_extra={"pattern": _SHA256.pattern})
    """SHA-256 of the weight file."""
    weights_dtype: Literal["float32", "float16"] = "float32"
    """Precision of the weight file."""
    license: Text = "Apache-2.0"
    """License of the weights."""
    use: Text = USE
    """Intended use."""
    format: Literal[1] = 1
    """Version of this format."""

    @field_validator("classes")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("each class once")
        return names

    @field_validator("weights_sha256")
    @classmethod
    def _hexadecimal(cls, digits: str) -> str:
        if digits and not _SHA256.fullmatch(digits):
            raise ValueError("64 lowercase hexadecimal digits")
        return digits

    @model_validator(mode="after")
    def _regions_of_classes(self) -> Self:
        for region, members in self.regions.items():
            for member in members:
                if member not in self.classes:
                    raise ValueError(
                        f"regions.{region} has the unknown class {member!r}; "
                        f"{suggestion(member, self.classes)}"
                    )
        return self

    @property
    def smallest_enhancement_mm3(self) -> float:
        """Smallest total volume of enhancing tumor in mm³; less is relabeled as necrosis."""
        return self.postprocessing.smallest_enhancement_mm3

    def to_json(self) -> str:
        """Return the text of ``card.json``."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str | Path = "card.json") -> Card:
        """Read the text of a ``card.json``, which must have every key but ``postprocessing``.

        Raises
        ------
        ModelError
            Naming ``source`` and the key that is missing, unknown or invalid.
        """
        if len(text) > _LARGEST:
            raise ModelError(f"{source}: {len(text)} characters, expected at most {_LARGEST}")
        try:
            table = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{source}: not valid JSON ({error})") from error
        refuse_placeholders(table, source)
        card = cls.from_dict(table, source=source)
        for key in cls.model_fields:
            if key not in card.model_fields_set | {"postprocessing"}:
                raise ModelError(
                    f"{source}: missing required key {key!r}; save the checkpoint again"
                )
        if not card.weights_sha256:
            raise ModelError(
                f"{source}: weights_sha256 is empty, expected 64 hexadecimal digits; weights "
                "without a hash are not loaded"
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
        missing="no such file; a card next to model.safetensors describes the network",
    )
    return Card.from_json(text, source=path)


def read_description(path: Path, *, architecture: str) -> tuple[Card, int | str | None]:
    """Read the description of a user's own network.

    The description is a card in which only ``task``, ``modalities``, ``classes``, ``activation``
    and ``preprocessing`` are required. Tumor regions are derived from the class names if absent,
    and the modalities of the preprocessing are those of the card.

    Returns
    -------
    Card
        The completed card.
    int | str | None
        The key ``output``: index or name of the output to use, if the network has several.

    Raises
    ------
    ModelError
        Naming ``path`` and the key that is missing, unknown or invalid.
    """
    table = read_json(path)
    refuse_placeholders(table, path)
    output = table.pop("output", None)
    if isinstance(output, bool) or not isinstance(output, int | str | None):
        raise ModelError(f"{path}: output is {output!r}, expected an index or a name")
    whole = {
        "name": architecture.rpartition(":")[2], "arguments": {}, "license": "unknown",
        **table, "architecture": architecture,
    }  # fmt: skip
    card = Card.from_dict(whole, source=path)
    if "preprocessing" not in table:
        raise ModelError(
            f"{path}: missing required key 'preprocessing'; add it, for example "
            '"preprocessing": {"intensity": "zscore", "divisor": 16, "size": null}'
        )
    recipe = {"modalities": list(card.modalities), **card.preprocessing}
    card = card.replace(preprocessing=recipe)
    if "regions" not in table and card.task == "segmentation":
        card = card.replace(regions=regions_of(card.classes, card.activation))
    return card, output
