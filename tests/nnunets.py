"""Trained-model folders of nnU-Net v2, with small networks whose weights are drawn by a rule."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from neuroxai.models.nnunet_networks import Architecture, NNUNet

CHANNELS = ("T1", "T1ce", "T2", "FLAIR")
SUFFIX = {"T1": "t1", "T1ce": "t1ce", "T2": "t2", "FLAIR": "flair"}
REGIONS: dict[str, Any] = {
    "background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3],
}  # fmt: skip
LABELS: dict[str, Any] = {"background": 0, "edema": 1, "necrosis": 2, "enhancing tumor": 3}
Edges = tuple[float, float, float]


class Kind(NamedTuple):
    """Labels, network, voxel edges of the scan, axes of the network, and its folds."""

    labels: dict[str, Any]
    network: str
    edges: Edges
    axes: int = 3
    folds: tuple[int, ...] = (0, 1)


KINDS = {
    "regions": Kind(REGIONS, "PlainConvUNet", (1, 1, 1)),
    "labels": Kind(LABELS, "PlainConvUNet", (1, 1, 1)),
    "residual": Kind(REGIONS, "ResidualEncoderUNet", (1, 1, 1)),
    "resampled": Kind(REGIONS, "PlainConvUNet", (1.3, 0.8, 1.1)),
    "thick": Kind(LABELS, "PlainConvUNet", (1.1, 1, 3.6)),
    "slices": Kind(LABELS, "PlainConvUNet", (1, 1, 1), axes=2, folds=(0,)),
    "slices_resampled": Kind(REGIONS, "ResidualEncoderUNet", (1.3, 4, 1.1), axes=2, folds=(0,)),
}
"""What nnU-Net's own answers are kept of."""
NAMES = {
    2: "nnUNetTrainer__nnUNetPlans__2d", 3: "nnUNetTrainer__nnUNetPlans__3d_fullres",
}  # fmt: skip


def configuration(axes: int) -> str:
    return NAMES[axes].rpartition("__")[2]


AFFINE = np.array([[-1.0, 0, 0, 20], [0, 1, 0, -15], [0, 0, 1, 3], [0, 0, 0, 1]])
SHAPE = (30, 37, 26)


def dataset(labels: Mapping[str, Any] = REGIONS) -> dict[str, Any]:
    return {
        "channel_names": {str(i): name for i, name in enumerate(CHANNELS)},
        "labels": dict(labels),
        "regions_class_order": [1, 2, 3],
        "numTraining": 2,
        "file_ending": ".nii.gz",
        "name": "Dataset137_BraTS2021",
    }


def architecture(network: str = "PlainConvUNet", axes: int = 3) -> dict[str, Any]:
    blocks = "n_conv_per_stage" if network == "PlainConvUNet" else "n_blocks_per_stage"
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{network}",
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [6, 8, 10],
            "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
            "kernel_sizes": [[3] * axes] * 3,
            "strides": [[1] * axes, [2] * axes, [1, 2, 2][:axes]],
            blocks: [2, 2, 2],
            "n_conv_per_stage_decoder": [2, 2],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def plans(network: str = "PlainConvUNet", axes: int = 3) -> dict[str, Any]:
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    base = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [12, 16, 20][-axes:],
        "median_image_size_in_voxels": [24.0, 28.0, 30.0],
        "spacing": [1.0] * axes,
        "normalization_schemes": ["ZScoreNormalization"] * 4,
        "use_mask_for_norm": [True] * 4,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": architecture(network, axes),
        "batch_dice": True,
    }
    return {
        "dataset_name": "Dataset137_BraTS2021",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [24, 28, 30],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [1, 0, 2],
        "transpose_backward": [1, 0, 2],
        "configurations": {
            "base": base,
            configuration(axes): {"inherits_from": "base"},
        },
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(i): {} for i in range(4)},
    }


def drawn(state: Mapping[str, Tensor], fold: int) -> dict[str, Tensor]:
    """Return weights for every name."""
    made = {}
    for name, value in state.items():
        rng = np.random.default_rng(zlib.crc32(f"{name}/{fold}".encode()))
        normal = rng.standard_normal(tuple(value.shape))
        if value.dim() > 1:
            normal *= np.sqrt(2 / np.prod(value.shape[1:]))
        elif name.endswith("norm.weight"):
            normal = 1 + 0.3 * normal
        else:
            normal *= 0.3
        made[name] = torch.from_numpy(normal).float()
    return made


def network(
    kind: str = "PlainConvUNet", outputs: int = 3, fold: int = 0, axes: int = 3
) -> nn.Module:
    arguments = dict(architecture(kind, axes)["arch_kwargs"])
    flat = axes == 2
    arguments |= {
        "conv_op": nn.Conv2d if flat else nn.Conv3d,
        "norm_op": nn.InstanceNorm2d if flat else nn.InstanceNorm3d,
        "nonlin": nn.LeakyReLU,
    }
    made = NNUNet(Architecture(**arguments), 4, outputs)
    made.load_state_dict(drawn(made.state_dict(), fold))
    return made.train(mode=False)


def as_saved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under all the names that nnU-Net gives them."""
    made = dict(state)
    for name, value in state.items():
        for number, layer in enumerate(("conv", "norm")):
            head, _, tail = name.rpartition(f".{layer}.")
            if head:
                made[f"{head}.all_modules.{number}.{tail}"] = value
    for name in [each for each in made if each.startswith("encoder.")]:
        made[f"decoder.{name}"] = made[name]
    return made


def write_nnunet(
    folder: Path,
    *,
    about: Mapping[str, Any] | None = None,
    planned: Mapping[str, Any] | None = None,
    folds: tuple[int, ...] = (0, 1),
    kind: str = "PlainConvUNet",
    axes: int = 3,
    pickled: bool = False,
) -> Path:
    """Write a trained-model folder; with ``pickled`` as nnU-Net does, else already converted."""
    root = folder / NAMES[axes]
    root.mkdir(parents=True)
    about = about or dataset()
    (root / "dataset.json").write_text(json.dumps(about))
    (root / "plans.json").write_text(json.dumps(planned or plans(kind, axes)))
    outputs = 3 if any(isinstance(each, list) for each in about["labels"].values()) else 4
    for fold in folds:
        (root / f"fold_{fold}").mkdir()
        weights = as_saved(network(kind, outputs, fold, axes).state_dict())
        if not pickled:
            copies = {name: value.clone() for name, value in weights.items()}
            save_file(copies, root / f"fold_{fold}" / "checkpoint_final.safetensors")
            continue
        checkpoint = {
            "network_weights": weights,
            # Training logs are full of NumPy's scalars.
            "optimizer_state": {"state": {}, "param_groups": [{"lr": np.float64(0.01)}]},
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float32(0.5)], "epoch_end_timestamps": [1.0]},
            "_best_ema": np.float32(0.25),
            "current_epoch": 3,
            "init_args": {"configuration": configuration(axes), "fold": fold, "plans": {}},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": (0, 1, 2),
        }
        torch.save(checkpoint, root / f"fold_{fold}" / "checkpoint_final.pth")
    return root


def volumes() -> dict[str, NDArray[np.float32]]:
    """A head off the middle with a hole of zeros in it, another contrast in every modality."""
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in SHAPE), indexing="ij"))
    center = np.array([13.0, 20.0, 11.0]).reshape(3, 1, 1, 1)
    head = (((grid - center) / np.array([11, 14, 9]).reshape(3, 1, 1, 1)) ** 2).sum(axis=0) < 1
    head[14:18, 18:22, 10:13] = False
    made = {}
    for number, name in enumerate(CHANNELS):
        rng = np.random.default_rng(40 + number)
        waves = sum(np.sin(grid[axis] / (2 + number + axis)) for axis in range(3))
        volume = 200 + 60 * waves + 20 * rng.standard_normal(SHAPE)
        made[name] = np.where(head, np.maximum(volume, 1), 0).astype(np.float32)
    return made


def write_case(folder: Path, edges: Edges = (1, 1, 1)) -> Path:
    folder.mkdir(parents=True)
    affine = AFFINE @ np.diag([*edges, 1])
    for name, volume in volumes().items():
        nib.save(nib.Nifti1Image(volume, affine), folder / f"{folder.name}_{SUFFIX[name]}.nii.gz")
    return folder
