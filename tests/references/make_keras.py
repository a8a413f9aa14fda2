"""Makes the reference files of ``test_models_keras_weights.py`` with TensorFlow.

In an environment of its own, which the project does not need::

    python -m venv throwaway
    throwaway/bin/pip install tensorflow-cpu tf_keras
    throwaway/bin/python tests/references/make_keras.py tests/references

Writes ``keras.json`` (layers, and what the two networks of the paper answer to weights and inputs
drawn from seeds) and two small files as Keras saves them: a whole model and weights only.
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

GAINS = {"deepseg": 5.0, "resnet50v2": 0.7}
"""How strongly drawn kernels amplify; so that the answers are neither flat nor saturated."""


def drawn(place: int, weight: str, shape: tuple[int, ...], gain: float) -> Any:
    """Return a layer's weight: a function of its place among the layers with weights."""
    rng = np.random.default_rng(zlib.crc32(f"{place}/{weight}".encode()))
    normal = rng.standard_normal(shape)
    if weight == "kernel":
        return normal * np.sqrt(gain / np.prod(shape[:-1]))
    return {
        "bias": 0.1 * normal, "gamma": 1 + 0.2 * normal, "beta": 0.1 * normal,
        "moving_mean": 0.1 * normal, "moving_variance": 0.5 + rng.random(shape),
    }[weight]  # fmt: skip


def image(shape: tuple[int, ...]) -> Any:
    """Return an input ``(B, *S, C)`` between 0 and 1."""
    return np.random.default_rng(5).random(shape).astype(np.float32)


def fill(model: Any, gain: float) -> list[dict[str, Any]]:
    """Give a model drawn weights; return its layers with weights, in order."""
    layers = []
    for place, layer in enumerate(each for each in model.layers if each.weights):
        names = [weight.name.rsplit("/", 1)[-1].partition(":")[0] for weight in layer.weights]
        shapes = [tuple(weight.shape) for weight in layer.weights]
        layer.set_weights([drawn(place, n, s, gain) for n, s in zip(names, shapes, strict=True)])
        layers.append({"name": layer.name, "weights": dict(zip(names, shapes, strict=True))})
    return layers


def deepseg(shape: tuple[int, ...], filters: int, depth: int, classes: int) -> Any:
    """Build DeepSeg as the paper describes it."""
    from tf_keras import Input, Model
    from tf_keras import layers as kl

    def block(x: Any, width: int, size: int = 3) -> Any:
        x = kl.Conv3D(width, size, padding="same")(x)
        return kl.Activation("relu")(kl.BatchNormalization()(x))

    x = inputs = Input(shape)
    skips = []
    for level in range(depth):
        skips.append(x)
        x = block(block(x, filters * 2**level), filters * 2**level)
        x = kl.MaxPooling3D(2)(x)
    x = kl.SpatialDropout3D(0.5)(x)
    for level in reversed(range(depth)):
        width = filters * 2**level
        x = kl.UpSampling3D(2)(block(x, width, 2))
        x = kl.concatenate([skips[level], x])
        x = block(block(x, width), width)
    x = kl.Conv3D(classes, 1, name="output_layer")(x)
    return Model(inputs, kl.Activation("softmax", name="output_layer_soft")(x))


def classifier(size: int) -> Any:
    """Build the classifier of the paper's published code."""
    from tf_keras import Input, Model
    from tf_keras import layers as kl
    from tf_keras.applications import ResNet50V2

    base = ResNet50V2(weights=None, include_top=False, input_tensor=Input((size, size, 3)))
    x = kl.Flatten()(kl.AveragePooling2D(3)(base.output))
    x = kl.Dropout(0.5)(kl.Dense(256, activation="relu")(x))
    return Model(base.input, kl.Dense(2, activation="softmax")(x))


def main(folder: Path) -> None:
    """Write the reference files."""
    import tensorflow as tf
    import tf_keras

    small = deepseg((8, 12, 16, 4), 2, 2, 4)
    layers = fill(small, GAINS["deepseg"])
    small.save(folder / "deepseg_model.h5", include_optimizer=False)
    small.save_weights(folder / "deepseg_weights.h5")
    answer = small.predict(image((2, 8, 12, 16, 4)), verbose=0)
    large, pictures = classifier(224), image((2, 224, 224, 3))
    large_layers = fill(large, GAINS["resnet50v2"])
    found: dict[str, Any] = {
        "made_with": {"tensorflow": tf.__version__, "tf_keras": tf_keras.__version__},
        "deepseg": {
            "layers": layers,
            "probabilities": np.round(answer[:, ::3, 1::5, 2::6], 7).tolist(),
            "mean": np.round(answer.mean(axis=(0, 1, 2, 3)), 7).tolist(),
        },
        "resnet50v2": {
            "layers": large_layers,
            "probabilities": np.round(large.predict(pictures, verbose=0), 7).tolist(),
        },
    }
    dense = tf_keras.Model(large.input, large.layers[-2].output)
    values = dense.predict(pictures, verbose=0)[:, :32]
    found["resnet50v2"]["dense"] = np.round(values, 6).tolist()
    (folder / "keras.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
