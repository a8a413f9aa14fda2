"""Configurations: strict, typed, overridable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from neuroxai.core.errors import TrainingError
from neuroxai.training.config_file import CONFIGS, config_from_dict, read_config

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
def test_the_packages_own_configurations_are_valid(path: Path) -> None:
    from neuroxai.data.preprocessing import Preprocessing
    from neuroxai.models.checkpoint import build_network

    config = read_config(path.stem)
    assert Preprocessing.from_dict(config.preprocessing).modalities == config.modalities
    if config.architecture == "deepseg":
        build_network(config.architecture, config.arguments, source=path)
    assert config_from_dict(config.to_dict()) == config


def test_values_take_their_types() -> None:
    config = config_from_dict(TABLE | {"learning_rate": "1e-3", "clip": 3, "patch": [8, 9, 10]})
    assert (config.learning_rate, config.clip, config.patch) == (0.001, 3.0, (8, 9, 10))
    assert isinstance(config.clip, float)
    assert config.preprocessing["modalities"] == ["T1", "FLAIR"]
    assert config.regions["TC"] == ("NCR", "ET")
    assert config_from_dict(TABLE | {"task": "classification"}).regions == {}
    assert "TC" not in config_from_dict(TABLE | {"classes": ["background", "ET"]}).regions


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"batc": 2}, "unknown key 'batc'; did you mean 'batch'"),
        ({"data": {"phantom": {"train": [0, 1], "test": [1, 2], "spacing": 1}}}, "spacings"),
        ({"batch": "two"}, "batch is 'two', expected int"),
        ({"batch": True}, "batch is True, expected int"),
        ({"batch": 0}, "above 0"),
        ({"max_steps": -5}, "above 0"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
        ({"task": "detection"}, "task is 'detection'"),
        ({"patch": 96}, "expected a list"),
        ({"augmentation": {"zoom": [1, 2, 3]}}, "a list of 2"),
        ({"augmentation": [1]}, "augmentation is .*, expected a table"),
        ({"modalities": "T1"}, "modalities"),
        ({"max_steps": None}, "one of epochs, max_steps and max_minutes"),
        ({"data": {}}, "exactly one of"),
        ({"data": {"phantom": {"train": [0, 4], "test": [3, 6]}}}, "trains on seeds"),
        ({"data": {"phantom": {"train": [4, 4], "test": [5, 6]}}}, "no seeds"),
        ({"classes": ["background", "edema"]}, "unknown class 'edema'"),
        ({"classes": ["ET", "background"]}, "not 'background'"),
        ({"class_weights": [1, 2]}, "class_weights has 2 numbers"),
        ({"warmup": 2}, "expected 0 to 1"),
        ({"preprocessing": {"modalities": ["T2"]}}, r"preprocessing\.modalities"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], word: str) -> None:
    with pytest.raises(TrainingError, match=word) as caught:
        config_from_dict(TABLE | change, source="some.yaml")
    assert str(caught.value).startswith("some.yaml: ")


def test_a_missing_key_is_named() -> None:
    with pytest.raises(TrainingError, match="the key 'name' is missing"):
        config_from_dict({key: value for key, value in TABLE.items() if key != "name"})
    with pytest.raises(TrainingError, match=r"the key 'data\.phantom\.test' is missing"):
        config_from_dict(TABLE | {"data": {"phantom": {"train": [0, 1]}}})


def test_overrides_reach_into_tables(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(TABLE))
    config = read_config(
        path, overrides=["batch=7", "augmentation.noise=0", "max_steps=null", "max_minutes=1.5"]
    )
    assert (config.batch, config.augmentation.noise) == (7, 0.0)
    assert (config.max_steps, config.max_minutes) == (None, 1.5)
    with pytest.raises(TrainingError, match="expected key=value"):
        read_config(path, overrides=["batch"])
    with pytest.raises(TrainingError, match="batch is no table"):
        read_config(path, overrides=["batch=1", "batch.size=7"])
    with pytest.raises(TrainingError, match="not valid YAML"):
        read_config(path, overrides=["batch=[1"])


def test_a_cohort_folder_takes_the_place_of_the_source(tmp_path: Path) -> None:
    config = read_config("phantom-segmentation", data=tmp_path, overrides=["batch=5"])
    assert config.data.phantom is None
    assert config.data.cohort is not None
    assert config.data.cohort.folder == str(tmp_path)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
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


def test_the_digest_sees_what_decides_the_result_and_nothing_else() -> None:
    digest = config_from_dict(TABLE).digest()
    assert (
        config_from_dict(TABLE | {"workers": 3, "cache": "x", "device": "cpu"}).digest() == digest
    )
    assert config_from_dict(TABLE | {"seed": 1}).digest() != digest
