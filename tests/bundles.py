"""MONAI bundles in the shape of brats_mri_segmentation, with small networks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import SegResNet
from safetensors.torch import save_file
from torch import nn

CHANNELS = ("T1c", "T1", "T2", "FLAIR")
NETWORK: dict[str, Any] = {
    "_target_": "SegResNet", "blocks_down": [1, 2, 2, 4], "blocks_up": [1, 1, 1],
    "init_filters": 8, "in_channels": 4, "out_channels": 3, "dropout_prob": 0.2,
}  # fmt: skip
NORMALIZE = {
    "_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True,
}  # fmt: skip


def metadata() -> dict[str, Any]:
    return {
        "version": "0.5.3",
        "intended_use": "This is an example, not to be used for diagnostic purposes",
        "eval_metrics": {"val_mean_dice": 0.85},
        "network_data_format": {
            "inputs": {
                "image": {
                    "num_channels": 4,
                    "spatial_shape": ["8*n", "8*n", "8*n"],
                    "channel_def": dict(zip("0123", CHANNELS, strict=True)),
                }
            },
            "outputs": {
                "pred": {
                    "num_channels": 3,
                    "channel_def": {
                        "0": "Tumor core", "1": "Whole tumor", "2": "Enhancing tumor",
                    },
                }
            },
        },
    }  # fmt: skip


def inference() -> dict[str, Any]:
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": dict(NETWORK),
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "LoadImaged", "keys": "image"}, dict(NORMALIZE)],
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [64, 64, 56], "overlap": 0.5},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
                {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing"},
                {"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: x"},
            ],
        },
        "evaluating": ["$@evaluator.run()"],
    }


def network(seed: int = 3, arguments: Mapping[str, Any] = NETWORK) -> nn.Module:
    """Return the bundle's network with weights from a seed, its norms and biases drawn too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = SegResNet(**{key: value for key, value in arguments.items() if key != "_target_"})
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.ndim == 1:
                    parameter += 0.2 * torch.randn_like(parameter)
    return made.train(mode=False)  # type: ignore[no-any-return]


def write_bundle(
    folder: Path,
    *,
    about: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    net: nn.Module | None = None,
) -> Path:
    """Write a bundle's folder."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "metadata.json").write_text(json.dumps(about or metadata()))
    (folder / "configs" / "inference.json").write_text(json.dumps(config or inference()))
    state = {k: v.contiguous() for k, v in (net or network()).state_dict().items()}
    save_file(state, folder / "models" / "model.safetensors")
    return folder
