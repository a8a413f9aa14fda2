"""Keras weights: outputs equal those of TensorFlow, without TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from command_line import here
from neuroxai.core.errors import ModelError
from neuroxai.models import load_model, save_checkpoint
from neuroxai.models.keras_file import read_keras_layers
from neuroxai.models.keras_weights import convert_keras
from references.make_keras import GAINS, drawn, image

FOLDER = Path(__file__).parents[1] / "references"


@lru_cache(maxsize=1)
def reference() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "keras.json").read_text())
    return found


def write_like_keras(path: Path, network: str, *, whole: bool = False) -> Path:
    """Write random weights in the format of Keras, without Keras."""
    layers, gain = reference()[network]["layers"], GAINS[network]
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole else file
        names = ["input_1", *(layer["name"] for layer in layers)]
        root.attrs["layer_names"] = [name.encode() for name in names]
        root.create_group("input_1").attrs["weight_names"] = []
        for place, layer in enumerate(layers):
            group = root.create_group(layer["name"])
            weights = {f"{layer['name']}/{w}:0": s for w, s in layer["weights"].items()}
            group.attrs["weight_names"] = [name.encode() for name in weights]
            for name, shape in weights.items():
                word = name.rsplit("/", 1)[-1].partition(":")[0]
                group.create_dataset(
                    name, data=drawn(place, word, tuple(shape), gain).astype(np.float32)
                )
    return path


def channels_first(x: Any) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy())


@pytest.mark.parametrize("name", ["deepseg_model.h5", "deepseg_weights.h5"])
def test_deepseg_output_equals_keras(name: str, tmp_path: Path) -> None:
    expected = reference()["deepseg"]
    network, card = convert_keras(FOLDER / name, "deepseg")
    folder = save_checkpoint(tmp_path / "deepseg", network, card)
    model = load_model(folder)
    assert model.card.modalities == ("FLAIR", "T1", "T1ce", "T2")
    with torch.no_grad():
        output = model.network(channels_first(image((2, 8, 12, 16, 4)))).softmax(dim=1)
    found = np.moveaxis(output.numpy(), 1, -1)
    np.testing.assert_allclose(found[:, ::3, 1::5, 2::6], expected["probabilities"], atol=1e-4)
    np.testing.assert_allclose(found.mean(axis=(0, 1, 2, 3)), expected["mean"], atol=1e-4)
    assert np.ptp(expected["probabilities"]) > 0.3


def test_generated_files_equal_those_of_keras(tmp_path: Path) -> None:
    for whole, name in ((True, "deepseg_model.h5"), (False, "deepseg_weights.h5")):
        path = write_like_keras(tmp_path / name, "deepseg", whole=whole)
        ours, theirs = read_keras_layers(path), read_keras_layers(FOLDER / name)
        assert [layer.name for layer in ours] == [layer.name for layer in theirs]
        for a, b in zip(ours, theirs, strict=True):
            assert a.arrays.keys() == b.arrays.keys()
            for word, values in a.arrays.items():
                np.testing.assert_allclose(values, b.arrays[word], atol=1e-6)


@pytest.mark.slow
def test_classifier_output_equals_keras(tmp_path: Path) -> None:
    expected = reference()["resnet50v2"]
    path = write_like_keras(tmp_path / "resnet.h5", "resnet50v2")
    network, card = convert_keras(path, "resnet50v2")
    assert card.arguments == {"in_channels": 3, "out_channels": 2}
    seen: list[torch.Tensor] = []
    handle = network.get_submodule("dense1_relu").register_forward_hook(
        lambda _module, _inputs, output: seen.append(output)
    )
    with torch.no_grad():
        output = network(channels_first(image((2, 224, 224, 3)))).softmax(dim=1)
    handle.remove()
    dense = np.array(expected["dense"])
    scale = float(np.abs(dense).max())
    np.testing.assert_allclose(seen[0][:, :32].numpy(), dense, atol=1e-4 * scale)
    np.testing.assert_allclose(output.numpy(), expected["probabilities"], atol=1e-4)


def test_the_command_writes_a_checkpoint_that_loads(tmp_path: Path) -> None:
    source = FOLDER / "deepseg_weights.h5"
    command = ("convert", "keras", source, "--architecture")
    done = here(*command, "deepseg", "-o", "made", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert load_model(tmp_path / "made").card.architecture == "deepseg"
    wrong = here(*command, "resnet50v2", cwd=tmp_path)
    assert wrong.returncode == 1
    assert wrong.stderr.count("\n") == 1
    assert "expected two and one for a ResNet50V2" in wrong.stderr


def _link(file: Any, path: Path) -> None:
    del file["conv3d/conv3d/kernel:0"]
    file["conv3d/conv3d/kernel:0"] = h5py.ExternalLink(str(FOLDER / "deepseg_weights.h5"), "/x")


def _soft(file: Any, path: Path) -> None:
    del file["conv3d/conv3d/kernel:0"]
    file["conv3d/conv3d/kernel:0"] = h5py.SoftLink("/conv3d_1/conv3d_1/kernel:0")


def _outside(file: Any, path: Path) -> None:
    shape = file["conv3d/conv3d/kernel:0"].shape
    del file["conv3d/conv3d/kernel:0"]
    secret = path.with_name("secret.bin")
    secret.write_bytes(b"\0" * 4 * int(np.prod(shape)))
    file["conv3d/conv3d"].create_dataset(
        "kernel:0", shape=shape, dtype="f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)]
    )


def _text(file: Any, path: Path) -> None:
    del file["conv3d/conv3d/kernel:0"]
    file["conv3d/conv3d/kernel:0"] = "import os"


def _nan(file: Any, path: Path) -> None:
    file["conv3d/conv3d/kernel:0"][0] = np.nan


def _up(file: Any, path: Path) -> None:
    file["conv3d"].attrs["weight_names"] = [b"../conv3d_1/conv3d_1/kernel:0"]


def _gone(file: Any, path: Path) -> None:
    del file["conv3d"]


def _list(file: Any, path: Path) -> None:
    del file.attrs["layer_names"]


def _shape(file: Any, path: Path) -> None:
    del file["conv3d/conv3d/kernel:0"]
    file["conv3d/conv3d/kernel:0"] = np.zeros((3, 3, 3, 3, 2), np.float32)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_link, "is a link; links are not followed"),
        (_soft, "is a link; links are not followed"),
        (_outside, "is stored in another file"),
        (_text, "is not an array of numbers"),
        (_nan, "not finite"),
        (_up, "does not exist"),
        (_gone, "does not exist"),
        (_list, "no valid list of layer_names"),
        (_shape, "has shape"),
    ],
)
def test_malicious_files_are_rejected(
    tmp_path: Path, spoil: Callable[[Any, Path], None], words: str
) -> None:
    path = write_like_keras(tmp_path / "a.h5", "deepseg")
    with h5py.File(path, "r+") as file:
        spoil(file, path)
    with pytest.raises(ModelError, match=words) as caught:
        convert_keras(path, "deepseg")
    assert str(path) in str(caught.value)


def test_files_that_are_not_keras_files(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="not a legacy Keras HDF5 file"):
        convert_keras(path, "deepseg")
    with pytest.raises(ModelError, match="no such file"):
        convert_keras(tmp_path / "b.h5", "deepseg")
    with pytest.raises(ModelError, match="did you mean 'deepseg'"):
        convert_keras(path, "deepsegg")
