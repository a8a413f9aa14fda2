"""Batches of random patches, cropped and transformed in a single interpolation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neuroxai.data.case import CLASSES
from neuroxai.training.config.augmentation import Augmentation
from neuroxai.training.config.config import Config
from neuroxai.training.data.augment import augment_intensity
from neuroxai.training.data.cases import PreparedCase

_POINTS = 2000
"""Voxels of each tissue that patches may be centered on; a case keeps 24 kB of them per class."""


class PatchBatches:
    """Endless batches of patches ``(B, C, X, Y, Z)`` with class indices ``(B, X, Y, Z)``.

    Batch n is a function of the seed and n, so a resumed training sees the batches of an
    uninterrupted one. On a GPU all volumes are kept in its memory if they fit.

    Parameters
    ----------
    cases
        Cases to sample from, with equal probability.
    config
        Patch size, batch size, augmentation, seed, classes.
    device
        Device of the batches.
    """

    def __init__(self, cases: Sequence[PreparedCase], config: Config, device: torch.device) -> None:
        self._cases = cases
        self._config = config
        self._device = device
        self._points = [
            _tumor_points(case.truth, np.random.default_rng([config.seed, index]))
            for index, case in enumerate(cases)
        ]
        self._channels = torch.tensor(
            [config.classes.index(name) if name in config.classes else 0 for name in CLASSES],
            device=device,
        )
        self._resident = _upload(cases, device)

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Make batch ``number``."""
        rng = np.random.default_rng([self._config.seed, 1, number])
        samples = [self._sample(rng) for _ in range(self._config.batch)]
        x = augment_intensity(
            torch.stack([image for image, _ in samples]), rng, self._config.augmentation
        )
        return x, torch.stack([truth for _, truth in samples])

    def _sample(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        index = int(rng.integers(len(self._cases)))
        size = np.array(self._cases[index].truth.shape)
        points = self._points[index]
        matrix = random_affine(rng, self._config.augmentation)
        patch = np.array(self._config.patch)
        center = rng.uniform(0, size)
        on_tumor = rng.random() < self._config.tumor_fraction
        # Up to a quarter of the patch off center; otherwise tumors would always be in the middle.
        jitter = rng.uniform(-0.25, 0.25, 3) * patch
        if on_tumor and points:
            tissue = points[int(rng.integers(len(points)))]
            center = tissue[int(rng.integers(len(tissue)))] + jitter
        reach = np.abs(matrix) @ ((patch - 1) / 2)
        center = _move_inside(center, reach, size)
        low = np.clip(np.floor(center - reach) - 1, 0, size - 1).astype(int)
        high = np.clip(np.ceil(center + reach) + 2, low + 1, size).astype(int)
        image, truth = self._crop(index, low, high)
        grid = _sampling_grid(matrix, center - low, high - low, patch, self._device)
        image = functional.grid_sample(image[None], grid, mode="bilinear", align_corners=True)[0]
        labels = functional.grid_sample(
            truth[None, None].float(), grid, mode="nearest", align_corners=True
        )[0, 0]
        return image, self._channels[labels.long()]

    def _crop(
        self, index: int, low: NDArray[np.int_], high: NDArray[np.int_]
    ) -> tuple[Tensor, Tensor]:
        """Crop a case to ``(C, *S)`` float32 and ``(*S)`` uint8, on the device."""
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        if self._resident:
            images, truth = self._resident[index]
            return images[(slice(None), *box)].float(), truth[box]
        case = self._cases[index]
        image = np.array(case.images[(slice(None), *box)], dtype=np.float32)
        return (
            torch.from_numpy(image).to(self._device),
            torch.from_numpy(np.array(case.truth[box])).to(self._device),
        )


def _move_inside(
    center: NDArray[np.float64], reach: NDArray[np.float64], size: NDArray[np.int_]
) -> NDArray[np.float64]:
    """Move the patch inside the volume, or the volume inside the patch, along each axis.

    At inference a volume fills the network's input. Patches across its border would bias the
    statistics of norms towards the background.
    """
    ends = np.stack([reach, size - 1 - reach])
    return np.clip(center, ends.min(axis=0), ends.max(axis=0))


def random_affine(rng: np.random.Generator, settings: Augmentation) -> NDArray[np.float64]:
    """Random matrix ``(3, 3)`` of flips, zoom and rotation, from patch to volume offsets."""
    zoom = np.exp(rng.uniform(*np.log(settings.zoom)))
    stretch = settings.anisotropy ** rng.uniform(-1, 1, 3)
    flips = np.where((rng.random(3) < 0.5) & np.array(settings.flip), -1.0, 1.0)
    angles = np.radians(rng.uniform(-settings.rotation, settings.rotation, 3))
    matrix = np.diag(zoom * stretch * flips)
    for axis, angle in enumerate(angles):
        rotation = np.eye(3)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        rotation[first, first] = rotation[second, second] = np.cos(angle)
        rotation[first, second], rotation[second, first] = -np.sin(angle), np.sin(angle)
        matrix = rotation @ matrix
    return matrix


def _sampling_grid(
    matrix: NDArray[np.float64],
    center: NDArray[np.float64],
    size: NDArray[np.int_],
    patch: NDArray[np.int_],
    device: torch.device,
) -> Tensor:
    """Grid for ``grid_sample``, in coordinates from −1 to 1, last axis first."""
    half = np.maximum(size - 1, 1) / 2
    linear = matrix * ((patch - 1) / 2)[None, :] / half[:, None]
    offset = center / half - 1
    theta = np.concatenate([linear[::-1, ::-1], offset[::-1, None]], axis=1)
    rows = torch.as_tensor(theta.copy(), dtype=torch.float32, device=device)[None]
    return functional.affine_grid(rows, [1, 1, *map(int, patch)], align_corners=True)


def _tumor_points(truth: NDArray[np.uint8], rng: np.random.Generator) -> list[NDArray[np.int_]]:
    """Random voxels of each tumor class in ``truth``."""
    points = []
    labels = np.asarray(truth)
    for tissue in range(1, len(CLASSES)):
        where = np.flatnonzero(labels == tissue)
        if len(where):
            where = rng.choice(where, min(_POINTS, len(where)), replace=False)
            points.append(np.stack(np.unravel_index(where, labels.shape), axis=1))
    return points


def _upload(cases: Sequence[PreparedCase], device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Copy all volumes to the GPU; empty on a CPU, or if they need over half of the free memory."""
    if device.type != "cuda":
        return []
    needed = sum(case.images.nbytes + case.truth.nbytes for case in cases)
    free, _ = torch.cuda.mem_get_info(device)
    if needed > free // 2:
        return []
    return [
        (
            torch.from_numpy(np.array(case.images)).to(device),
            torch.from_numpy(np.array(case.truth)).to(device),
        )
        for case in cases
    ]
