"""Training configurations: validation, types and overrides."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from neuroxai.core.errors import TrainingError
from neuroxai.files.schema import Schema
from neuroxai.training.config.augmentation import Augmentation
from neuroxai.training.config.config import Config
from neuroxai.training.config.config_file import CONFIGS, read_config
from neuroxai.training.config.sources import CohortSource, PhantomSource

TABLE: dict[str, Any] = {
    "name": "n",
    "task": "segmentation",
    "architecture": "deepseg",
    "modalities": ["T1", "FLAIR"],
    "preprocessing": {"intensity": "zscore"},
    "data": {"phantom": {"train": [0, 4], "test": [4, 6]}},
    "max_steps": 3,
}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(path: Path) -> None:
    from neuroxai.data.preprocessing import Preprocessing
    from neuroxai.models.checkpoint import build_network

    config = read_config(path.stem)
    assert Preprocessing.from_dict(config.preprocessing.to_dict()) == config.preprocessing
    assert config.preprocessing.modalities == config.modalities
    if config.architecture == "deepseg":
        build_network(config.architecture, config.arguments, source=path)
    assert Config.from_dict(config.to_dict()) == config


def test_values_are_converted() -> None:
    config = Config.from_dict(TABLE | {"learning_rate": "1e-3", "clip": 3, "patch": [8, 9, 10]})
    assert (config.learning_rate, config.clip, config.patch) == (0.001, 3.0, (8, 9, 10))
    assert isinstance(config.clip, float)
    assert config.preprocessing.modalities == ("T1", "FLAIR")
    assert config.regions["TC"] == ("NCR", "ET")
    assert Config.from_dict(TABLE | {"task": "classification"}).regions == {}
    assert "TC" not in Config.from_dict(TABLE | {"classes": ["background", "ET"]}).regions


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"batc": 2}, "unknown key 'batc'; did you mean 'batch'"),
        (
            {"data": {"phantom": {"train": [0, 1], "test": [1, 2], "spacing": 1}}},
            r"unknown key 'data\.phantom\.spacing'; did you mean 'spacings'",
        ),
        ({"batch": "two"}, "batch is 'two', expected a whole number above 0"),
        ({"batch": True}, "batch is True, expected a whole number above 0"),
        ({"batch": 2.0}, r"batch is 2\.0, expected a whole number above 0"),
        ({"batch": 0}, "above 0"),
        ({"max_steps": -5}, "above 0"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
        ({"task": "detection"}, "task is 'detection', expected 'segmentation' or"),
        ({"patch": 96}, "expected a list"),
        ({"augmentation": {"zoom": [1, 2, 3]}}, "expected a list of 2 numbers above 0"),
        ({"augmentation": [1]}, "augmentation is .*, expected a mapping"),
        ({"modalities": "T1"}, "modalities"),
        ({"max_steps": None}, "none of epochs, max_steps and max_minutes"),
        ({"data": {}}, "data: expected exactly one of"),
        ({"data": {"phantom": {"train": [0, 4], "test": [3, 6]}}}, "train and test share seeds"),
        ({"data": {"phantom": {"train": [4, 4], "test": [5, 6]}}}, "at least one seed"),
        ({"classes": ["background", "edema"]}, "unknown class 'edema'"),
        ({"classes": ["ET", "background"]}, "begins with 'ET', expected 'background'"),
        ({"class_weights": [1, 2]}, "class_weights has 2 numbers"),
        ({"warmup": 2}, "warmup is 2, expected a number from 0 to 1"),
        ({"preprocessing": {"modalities": ["T2"]}}, r"preprocessing\.modalities"),
    ],
)
def test_invalid_values_are_named(change: dict[str, Any], word: str) -> None:
    with pytest.raises(TrainingError, match=word) as caught:
        Config.from_dict(TABLE | change, source="some.yaml")
    assert str(caught.value).startswith("some.yaml: ")


PLACES: dict[type[Schema], Callable[[dict[str, Any]], dict[str, Any]]] = {
    Config: lambda change: TABLE | change,
    Augmentation: lambda change: TABLE | {"augmentation": change},
    PhantomSource: lambda change: TABLE | {"data": {"phantom": {**PHANTOM, **change}}},
    CohortSource: lambda change: TABLE | {"data": {"cohort": {"folder": "f", **change}}},
}
PHANTOM: dict[str, Any] = {"train": [0, 4], "test": [4, 6]}
MANY: dict[str, Any] = {"class_weights": 4, "spacings": 1, "zoom": 2, "gamma": 2, "contrast": 2,
                        "ceiling": 2}  # fmt: skip
FRACTIONS = [
    (kind, name)
    for kind in PLACES
    for name, field in kind.model_fields.items()
    if "float" in str(field.annotation)
]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -1e-3])
@pytest.mark.parametrize(("kind", "key"), FRACTIONS, ids=[key for _, key in FRACTIONS])
def test_numbers_are_finite_and_not_negative(kind: type[Schema], key: str, number: float) -> None:
    """All numbers of the schema, including those added later."""
    value = [*[1.0] * (MANY[key] - 1), number] if key in MANY else number
    with pytest.raises(TrainingError, match=f"{key}|spacing") as caught:
        Config.from_dict(PLACES[kind]({key: value}), source="some.yaml")
    assert str(caught.value).startswith("some.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patch": [16, 16]}, r"patch is \[16, 16\], expected three whole numbers above 0"),
        ({"patch": [-8, 16, 8]}, r"patch is \[-8, 16, 8\], expected three"),
        ({"patch": [0, 16, 8]}, "patch is"),
        ({"learning_rate": "nan"}, "learning_rate is nan, expected a number above 0"),
        ({"max_minutes": "nan"}, "max_minutes is nan, expected a number above 0"),
        ({"weight_decay": -1}, "weight_decay is -1, expected a number from 0 up"),
        ({"clip": -1}, "clip is"),
        ({"focus_steps": -4}, "focus_steps is -4"),
        ({"focus_size": 0}, "focus_size is 0"),
        ({"frozen_layers": ["encoder"], "frozen_epochs": -1}, "frozen_epochs is"),
        ({"seed": -1}, "seed is -1, expected a whole number from 0 to below 10000000000000"),
        ({"seed": 10**14}, "seed is 100000000000000, expected"),
        ({"class_weights": [1, -1, -1, -1]}, r"class_weights\[1\] is -1, expected a number"),
        ({"class_weights": [0, 0, 0, 0]}, "at least one number above 0"),
        ({"classes": ["background"]}, "at least two different names"),
        ({"classes": ["background", "ET", "ET", "ED"]}, "at least two different names"),
        ({"augmentation": {"zoom": [1.2, 0.8]}}, r"augmentation\.zoom is \[1\.2, 0\.8\]"),
        ({"augmentation": {"zoom": [0, 1]}}, r"zoom\[0\] is 0, expected a number above 0"),
        ({"augmentation": {"gamma": [0, 1]}}, r"augmentation\.gamma"),
        ({"augmentation": {"contrast": [2, 1]}}, r"contrast is \[2, 1\], expected \[smallest, "),
        ({"augmentation": {"ceiling": [0.5, 1.5]}}, "augmentation: ceiling is .* at most 1"),
        ({"augmentation": {"tone": 1.5}}, r"augmentation\.tone is 1\.5, expected a .* 0 to 1"),
        ({"augmentation": {"thick_slices": 2}}, r"augmentation\.thick_slices .* from 0 to 1"),
        ({"augmentation": {"anisotropy": 0}}, r"augmentation\.anisotropy .* above 0"),
        ({"augmentation": {"flip": [True, False]}}, r"augmentation\.flip .* three .* X, Y, Z"),
        ({"augmentation": {"flip": [True]}}, r"augmentation\.flip"),
        ({"data": {"phantom": {**PHANTOM, "train": [-3, 4]}}}, r"data\.phantom\.train\[0\] is -3"),
        ({"data": {"phantom": {**PHANTOM, "validation": [9, 7]}}}, r"validation is \[9, 7\]"),
        ({"data": {"phantom": {**PHANTOM, "spacings": [0]}}}, r"spacings\[0\] is 0, expected"),
        ({"data": {"phantom": {**PHANTOM, "spacings": [9]}}}, "phantom spacing 9.* 0.8 to 3 mm"),
        ({"data": {"phantom": {**PHANTOM, "spacings": []}}}, r"spacings is \[\], expected a list"),
        ({"data": {"phantom": {**PHANTOM, "variant": "rim"}}}, "variant"),
        ({"data": {"phantom": {**PHANTOM, "variant": "rim_t1ce", "wide": 0.5}}}, "wide"),
        ({"arguments": {"dropout": math.nan}}, r"arguments\.dropout is nan"),
        ({"arguments": {1: 2}}, "arguments has the key 1, expected text"),
        ({"preprocessing": {"clip": math.inf}}, r"preprocessing\.clip is inf"),
        ({"preprocessing": {"spacing_mm": [1, math.nan]}}, r"preprocessing\.spacing_mm\[1\] is n"),
        ({"learning_rate": 10**400}, "learning_rate is"),
        ({3: 4}, "unknown key '3'"),
        (
            {
                "classes": ["background", "ET", "NCR"], "validate_every": 1,
                "data": {"phantom": {**PHANTOM, "validation": [7, 9]}}, "tumor_fraction": 0,
            },
            None,
        ),
        (
            {
                "classes": ["background", "NCR"], "validate_every": 1,
                "data": {"phantom": {**PHANTOM, "validation": [7, 9]}},
            },
            "classes form none of",
        ),
    ],
)  # fmt: skip
def test_values_out_of_range_are_named(change: dict[Any, Any], words: str | None) -> None:
    if words is None:
        assert Config.from_dict(TABLE | change).classes
        return
    with pytest.raises(TrainingError, match=words) as caught:
        Config.from_dict(TABLE | change, source="some.yaml")
    assert str(caught.value).startswith("some.yaml: ")


def test_limits_of_ranges_are_valid() -> None:
    """Values at the limits of their ranges are valid."""
    ends = {
        "seed": 10**13 - 1, "class_weights": [0, 1, 2, 3], "clip": 0, "weight_decay": 0,
        "tumor_fraction": 1, "average": 1, "warmup": 1, "focus_steps": 0, "auxiliary_loss": 0,
        "augmentation": {
            "zoom": [1, 1], "gamma": [1, 1], "contrast": [1, 1], "ceiling": [1, 1], "tone": 0,
            "anisotropy": 1, "rotation": 0, "noise": 0, "blur": 0, "bias": 0, "brightness": 0,
            "thick_slices": 1,
        },
    }  # fmt: skip
    assert Config.from_dict(TABLE | ends).seed == 10**13 - 1
    flat = {"task": "classification", "classes": ["LGG", "HGG"]}
    assert Config.from_dict(TABLE | flat | {"augmentation": {"flip": [True, False]}})


def test_missing_keys_are_named() -> None:
    with pytest.raises(TrainingError, match="missing required key 'name'"):
        Config.from_dict({key: value for key, value in TABLE.items() if key != "name"})
    with pytest.raises(
        TrainingError, match=r"missing required key 'data\.phantom\.test'; add it, for example"
    ):
        Config.from_dict(TABLE | {"data": {"phantom": {"train": [0, 1]}}})


def test_overrides_of_nested_keys(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(TABLE))
    config = read_config(
        path, overrides=["batch=7", "augmentation.noise=0", "max_steps=null", "max_minutes=1.5"]
    )
    assert (config.batch, config.augmentation.noise) == (7, 0.0)
    assert (config.max_steps, config.max_minutes) == (None, 1.5)
    with pytest.raises(TrainingError, match="expected key=value"):
        read_config(path, overrides=["batch"])
    with pytest.raises(TrainingError, match="batch is a single value"):
        read_config(path, overrides=["batch=1", "batch.size=7"])
    with pytest.raises(TrainingError, match="not valid YAML"):
        read_config(path, overrides=["batch=[1"])


def test_a_cohort_folder_replaces_the_source(tmp_path: Path) -> None:
    config = read_config("phantom-segmentation", data=tmp_path, overrides=["batch=5"])
    assert config.data.phantom is None
    assert config.data.cohort is not None
    assert config.data.cohort.folder == str(tmp_path)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="did you mean 'phantom-grading'"):
        read_config("phantom-gradin")
    path = tmp_path / "run.yaml"
    for content in (
        b"[1, 2",
        b"just text",
        b"",
        b"\xff\xfe\x00\x00",
        b"a: !!python/name:os.system",
    ):
        path.write_bytes(content)
        with pytest.raises(TrainingError, match=r"run\.yaml"):
            read_config(path)
    with pytest.raises(TrainingError, match="cannot be read"):
        read_config(tmp_path)


def test_the_digest_covers_what_determines_the_result() -> None:
    digest = Config.from_dict(TABLE).digest()
    assert (
        Config.from_dict(TABLE | {"workers": 3, "cache": "x", "device": "cpu"}).digest() == digest
    )
    assert Config.from_dict(TABLE | {"seed": 1}).digest() != digest
