"""Model card of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuroxai.models.card import Card, Postprocessing
from neuroxai.training.config.config import Config
from neuroxai.training.data.cases import PreparedCases


def make_card(config: Config, training: dict[str, Any]) -> Card:
    """Card of a trained network, without metrics."""
    return Card(
        name=config.name,
        architecture=config.architecture,
        arguments=dict(config.arguments),
        task=config.task,
        modalities=config.modalities,
        classes=config.classes,
        regions=config.regions,
        activation="softmax",
        preprocessing=config.preprocessing.to_dict(),
        postprocessing=Postprocessing(smallest_enhancement_mm3=config.smallest_enhancement_mm3),
        training=training,
        license=config.license,
    )


def describe_data(config: Config, cases: PreparedCases) -> dict[str, Any]:
    """Source of the data and number of cases in each part of the split."""
    counts = {"train_cases": len(cases.train), "held_out_cases": len(cases.test)}
    if cases.validation:
        counts["validation_cases"] = len(cases.validation)
    if config.data.phantom is not None:
        source = config.data.phantom
        return {
            "source": "synthetic phantoms on MNI152 anatomy",
            "train_seeds": list(source.train),
            "held_out_seeds": list(source.test),
            **({"validation_seeds": list(source.validation)} if source.validation else {}),
            "spacings_mm": list(source.spacings),
            "variant": source.variant,
            "wide": source.wide,
            **counts,
        }
    if config.data.pictures is not None:
        note = "pictures without patient names: training and test may share patients"
        return {"source": Path(config.data.pictures.folder).name, "note": note, **counts}
    folder = config.data.cohort.folder if config.data.cohort else ""
    return {"source": Path(folder).name, **counts}
