"""A small asymmetric study and a small checkpoint, made by the tests themselves."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from neuroxai.models.card import Card
from neuroxai.models.checkpoint import save_checkpoint
from neuroxai.models.deepseg import DeepSeg
from neuroxai.models.resnet import ResNet50

STUDY = "BraTS2021_00007"
SHAPE = (26, 45, 30)
MODALITIES = ("T1", "T1ce", "T2", "FLAIR")
LPS = np.array([[-1.0, 0, 0, 12], [0, -1.0, 0, 30], [0, 0, 1.0, -9], [0, 0, 0, 1]])


def volumes(seed: int = 0) -> tuple[dict[str, NDArray[np.int16]], NDArray[np.uint8]]:
    """Return a brain-like ellipsoid in air with a blob on one side, and labels 0, 1, 2, 4."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")).astype(float)
    middle = np.array(SHAPE)[:, None, None, None] / 2
    radius = np.array(SHAPE)[:, None, None, None] * 0.42
    brain = (((grid - middle) / radius) ** 2).sum(axis=0) < 1
    blob = np.array([8.0, 16.0, 17.0])[:, None, None, None]
    distance = np.sqrt(((grid - blob) ** 2).sum(axis=0))
    labels = np.zeros(SHAPE, np.uint8)
    labels[brain & (distance < 6)] = 2
    labels[brain & (distance < 4)] = 4
    labels[brain & (distance < 2)] = 1
    made = {}
    for number, name in enumerate(MODALITIES):
        image = 300 + 40 * rng.standard_normal(SHAPE) + 100 * number * (labels == 4)
        image += 250 * (labels == 2) * (name in ("T2", "FLAIR"))
        made[name] = np.where(brain, np.clip(image, 1, None), 0).astype(np.int16)
    return made, labels


def write_study(
    folder: Path,
    name: str = STUDY,
    *,
    affine: NDArray[np.float64] = LPS,
    turn: NDArray[np.float64] | None = None,
    truth: bool = True,
) -> Path:
    """Write the study in the layout of 2021 with nibabel alone, turned if asked."""
    place = folder / name
    place.mkdir(parents=True)
    images, labels = volumes()
    files = {"t1": "T1", "t1ce": "T1ce", "t2": "T2", "flair": "FLAIR"}
    arrays: dict[str, NDArray[np.int16] | NDArray[np.uint8]] = {
        suffix: images[modality] for suffix, modality in files.items()
    }
    if truth:
        arrays["seg"] = labels
    for suffix, array in arrays.items():
        image = nib.Nifti1Image(array, affine)
        if turn is not None:
            image = image.as_reoriented(turn)
        image.set_sform(image.affine, 1)
        image.set_qform(image.affine, 1)
        nib.save(image, place / f"{name}_{suffix}.nii.gz")
    return place


def orientations() -> Iterator[NDArray[np.float64]]:
    """Yield the 48 ways to store one grid: axis permutations and flips."""
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((1, -1), repeat=3):
            yield np.array(list(zip(axes, flips, strict=True)), dtype=float)


def segmenter(folder: Path, size: tuple[int, int, int] = (192, 224, 160), filters: int = 4) -> Path:
    """Write an untrained DeepSeg that sees ``size`` voxels as a checkpoint."""
    torch.manual_seed(5)
    arguments = {"in_channels": 4, "out_channels": 4, "filters": filters}
    card = Card(
        name="untrained-segmenter",
        architecture="deepseg",
        arguments=arguments,
        task="segmentation",
        modalities=MODALITIES,
        classes=("background", "NCR", "ED", "ET"),
        regions={"WT": ("NCR", "ED", "ET"), "TC": ("NCR", "ET"), "ET": ("ET",)},
        activation="softmax",
        preprocessing={"modalities": list(MODALITIES), "size": list(size)},
        training={},
        metrics={},
    )
    return save_checkpoint(folder / "segmenter", DeepSeg(**arguments), card)


def classifier(folder: Path) -> Path:
    """Write an untrained ResNet-50 as a checkpoint."""
    torch.manual_seed(6)
    names = ("FLAIR", "T1ce", "T2")
    card = Card(
        name="untrained-classifier",
        architecture="resnet50",
        arguments={"in_channels": 3, "out_channels": 2},
        task="classification",
        modalities=names,
        classes=("LGG", "HGG"),
        regions={},
        activation="softmax",
        preprocessing={"modalities": list(names), "plane": "axial", "size": [48, 64]},
        training={},
        metrics={},
    )
    return save_checkpoint(folder / "classifier", ResNet50(in_channels=3, out_channels=2), card)


def tiny(
    folder: Path,
    classes: tuple[str, ...],
    regions: dict[str, tuple[str, ...]],
    size: tuple[int, int, int] = (32, 64, 32),
) -> Path:
    """Save an untrained DeepSeg of two levels and two filters."""
    arguments = {"in_channels": 4, "out_channels": len(classes), "filters": 2, "depth": 2}
    card = Card(
        name="tiny [bold]",
        architecture="deepseg",
        arguments=arguments,
        task="segmentation",
        modalities=MODALITIES,
        classes=classes,
        regions=regions,
        activation="softmax",
        preprocessing={"modalities": list(MODALITIES), "size": list(size)},
    )
    return save_checkpoint(folder, DeepSeg(**arguments), card)
