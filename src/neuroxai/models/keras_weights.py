"""Conversion of the paper's published Keras weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroxai.core.errors import ModelError, suggestion
from neuroxai.models.card import Card
from neuroxai.models.checkpoint import build_network
from neuroxai.models.keras_file import KerasLayer, read_keras_layers
from neuroxai.models.weights import load_state

KERAS_EPSILON = 1e-3
"""Default epsilon of batch norms in ``tf.keras``."""

_PER_LEVEL = 5
"""Convolutions of a DeepSeg level: two in the encoder, three in the decoder."""


def convert_keras(path: Path, architecture: str) -> tuple[nn.Module, Card]:
    """Convert a legacy Keras HDF5 file of the paper's networks, without TensorFlow.

    Parameters
    ----------
    path
        Whole-model or weights-only file.
    architecture
        ``deepseg``, the 3D segmenter with batch norm, of any depth and width; or ``resnet50v2``,
        the classifier of 224×224 slices.

    Returns
    -------
    network, card
        Arguments of :func:`~neuroxai.models.checkpoint.save_checkpoint`. The network returns
        logits, without the final softmax of the Keras model.

    Raises
    ------
    ModelError
        If the layers do not match the architecture.

    References
    ----------
    Zeineldin et al. 2022, doi:10.1007/s11548-022-02619-x, and its published code.
    """
    if architecture not in _CONVERTERS:
        raise ModelError(
            f"unknown architecture {architecture!r}; {suggestion(architecture, _CONVERTERS)}"
        )
    return _CONVERTERS[architecture](path, read_keras_layers(path))


def _deepseg(path: Path, layers: list[KerasLayer]) -> tuple[nn.Module, Card]:
    convolutions = [layer for layer in layers if not layer.is_norm]
    norms = [layer for layer in layers if layer.is_norm]
    depth, rest = divmod(len(convolutions) - 1, _PER_LEVEL)
    kernels = [layer.arrays.get("kernel", np.empty(0)) for layer in convolutions]
    if depth < 1 or rest or len(norms) != len(convolutions) - 1 or kernels[0].ndim not in (4, 5):
        raise ModelError(
            f"{path}: has {len(convolutions)} convolutions and {len(norms)} batch norms, expected "
            "26 and 25 (5·depth + 1 and 5·depth) for a DeepSeg with batch norm"
        )
    arguments = {
        "in_channels": int(kernels[0].shape[-2]), "out_channels": int(kernels[-1].shape[-1]),
        "filters": int(kernels[0].shape[-1]), "depth": depth,
        "spatial_dims": kernels[0].ndim - 2,
    }  # fmt: skip
    network = build_network("deepseg", arguments, source=path)
    names = [name for name, module in network.named_modules() if isinstance(module, _CONVOLUTIONS)]
    state: dict[str, Tensor] = {}
    for name, layer in zip(names, convolutions, strict=True):
        weight = _kernel(layer, path)
        if re.fullmatch(r"decoder\.\d+\.conv1", name):
            # Keras concatenates the skip first, we concatenate it last.
            skip = weight.shape[1] - weight.shape[0]
            weight = torch.cat([weight[:, skip:], weight[:, :skip]], dim=1)
        state[f"{name}.weight"], state[f"{name}.bias"] = weight, _tensor(layer, "bias", path)
    names = [name for name, module in network.named_modules() if isinstance(module, _NORMS)]
    for name, layer in zip(names, norms, strict=True):
        state.update(_norm(name, layer, path, KERAS_EPSILON - 1e-5))
    load_state(network, state, path)
    classes = ("background", "NCR", "ED", "ET")
    known = arguments["in_channels"] == 4 and arguments["out_channels"] == len(classes)
    if not known:
        raise ModelError(
            f"{path}: has {arguments['in_channels']} input and {arguments['out_channels']} output "
            f"channels, expected 4 (FLAIR, T1, T1ce, T2) and 4 ({', '.join(classes)})"
        )
    return network.eval(), Card(
        name=path.stem,
        architecture="deepseg",
        arguments=arguments,
        task="segmentation",
        modalities=("FLAIR", "T1", "T1ce", "T2"),
        classes=classes,
        activation="softmax",
        regions={"WT": ("NCR", "ED", "ET"), "TC": ("NCR", "ET"), "ET": ("ET",)},
        preprocessing={
            "modalities": ["FLAIR", "T1", "T1ce", "T2"],
            "intensity": "minmax",
            "size": [192, 224, 160],
            "orientation": "LPS",
        },
        training={"converted_from": path.name, "format": "legacy Keras HDF5"},
        license="as published with the weights",
    )


def _resnet50v2(path: Path, layers: list[KerasLayer]) -> tuple[nn.Module, Card]:
    named = {layer.name: layer for layer in layers}
    dense = [layer for layer in layers if layer.arrays.get("kernel", np.empty(0)).ndim == 2]
    if len(dense) != 2 or "conv1_conv" not in named:
        raise ModelError(
            f"{path}: has {len(dense)} dense layers and "
            f"{'a' if 'conv1_conv' in named else 'no'} layer conv1_conv, expected two and one for "
            "a ResNet50V2 with the paper's head"
        )
    arguments = {
        "in_channels": int(named["conv1_conv"].arrays["kernel"].shape[-2]),
        "out_channels": int(dense[1].arrays["kernel"].shape[-1]),
    }
    network = build_network("resnet50v2", arguments, source=path)
    state: dict[str, Tensor] = {}
    for ours, theirs in _resnet_names(network):
        if theirs not in named:
            raise ModelError(f"{path}: missing layer {theirs}")
        layer = named[theirs]
        if layer.is_norm:
            state.update(_norm(ours, layer, path, 0.0))
            continue
        state[f"{ours}.weight"] = _kernel(layer, path)
        if "bias" in layer.arrays:
            state[f"{ours}.bias"] = _tensor(layer, "bias", path)
    for ours, layer in zip(("dense1", "dense2"), dense, strict=True):
        weight = _tensor(layer, "kernel", path).t()
        if ours == "dense1":
            # Keras flattens (X, Y, C), PyTorch (C, X, Y).
            cells = round((weight.shape[1] / 2048) ** 0.5)
            weight = weight.reshape(-1, cells, cells, 2048).permute(0, 3, 1, 2).flatten(1)
        state[f"{ours}.weight"] = weight.contiguous()
        state[f"{ours}.bias"] = _tensor(layer, "bias", path)
    load_state(network, state, path)
    classes = ("LGG", "HGG") if arguments["out_channels"] == 2 else None
    names = classes or tuple(f"class {n}" for n in range(arguments["out_channels"]))
    return network.eval(), Card(
        name=path.stem,
        architecture="resnet50v2",
        arguments=arguments,
        task="classification",
        modalities=("FLAIR",) * arguments["in_channels"],
        classes=names,
        activation="softmax",
        preprocessing={
            "modalities": ["FLAIR"] * arguments["in_channels"],
            "intensity": "minmax",
            "size": [224, 224],
            "plane": "axial",
        },
        training={
            "converted_from": path.name,
            "format": "legacy Keras HDF5",
            "note": "trained on 8-bit pictures divided by 255; the file does not define how they "
            "were made from scans, nor the order of the classes: check both",
        },
        license="as published with the weights",
    )


def _resnet_names(network: nn.Module) -> list[tuple[str, str]]:
    """Return pairs of layer names: ours and those of ``keras.applications.ResNet50V2``."""
    pairs = [("conv1", "conv1_conv"), ("post_norm", "post_bn")]
    number = 0
    for stage, blocks in enumerate((3, 4, 6, 3), start=2):
        for block in range(1, blocks + 1):
            ours, theirs = f"blocks.{number}", f"conv{stage}_block{block}"
            pairs += [(f"{ours}.norm0", f"{theirs}_preact_bn")]
            pairs += [(f"{ours}.conv{n}", f"{theirs}_{n}_conv") for n in (1, 2, 3)]
            pairs += [(f"{ours}.norm{n}", f"{theirs}_{n}_bn") for n in (1, 2)]
            if block == 1:
                pairs.append((f"{ours}.shortcut", f"{theirs}_0_conv"))
            number += 1
    return pairs


_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)


def _kernel(layer: KerasLayer, path: Path) -> Tensor:
    """Return a kernel ``(out, in, *S)``; Keras stores ``(*S, in, out)``."""
    kernel = _tensor(layer, "kernel", path)
    axes = (kernel.ndim - 1, kernel.ndim - 2, *range(kernel.ndim - 2))
    return kernel.permute(*axes).contiguous()


def _norm(name: str, layer: KerasLayer, path: Path, extra_variance: float) -> dict[str, Tensor]:
    """Return a batch norm's state; ``extra_variance`` is Keras' epsilon minus ours."""
    return {
        f"{name}.weight": _tensor(layer, "gamma", path),
        f"{name}.bias": _tensor(layer, "beta", path),
        f"{name}.running_mean": _tensor(layer, "moving_mean", path),
        f"{name}.running_var": _tensor(layer, "moving_variance", path) + extra_variance,
        f"{name}.num_batches_tracked": torch.tensor(0),
    }


def _tensor(layer: KerasLayer, name: str, path: Path) -> Tensor:
    if name not in layer.arrays:
        raise ModelError(f"{path}: the layer {layer.name} has no {name}")
    values: NDArray[Any] = layer.arrays[name]
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


_CONVERTERS: Mapping[str, Callable[[Path, list[KerasLayer]], tuple[nn.Module, Card]]] = {
    "deepseg": _deepseg,
    "resnet50v2": _resnet50v2,
}
