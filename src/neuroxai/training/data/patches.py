"""Random patches of volumes, cut, turned and zoomed in one step where the volumes lie."""

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
from neuroxai.training.data.augment import vary_intensity
from neuroxai.training.data.cases import Prepared

_POINTS = 2000


class PatchBatches:
    """Endless batches of patches ``(B, C, X, Y, Z)`` and class indices ``(B, X, Y, Z)``.

    Batch n is a function of the seed and n alone, so a run taken up at step n sees what an
    uninterrupted one would have seen. On a GPU all volumes are kept in its memory if they fit.

    Parameters
    ----------
    cases
        What to draw from, each with equal chance.
    config
        Patch size, batch size, augmentation, seed, classes.
    device
        Where batches are made and left.
    """

    def __init__(self, cases: Sequence[Prepared], config: Config, device: torch.device) -> None:
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
        """Return batch ``number``."""
        rng = np.random.default_rng([self._config.seed, 1, number])
        samples = [self._sample(rng) for _ in range(self._config.batch)]
        x = vary_intensity(
            torch.stack([image for image, _ in samples]), rng, self._config.augmentation
        )
        return x, torch.stack([truth for _, truth in samples])

    def _sample(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        index = int(rng.integers(len(self._cases)))
        size = np.array(self._cases[index].truth.shape)
        points = self._points[index]
        matrix = random_matrix(rng, self._config.augmentation)
        patch = np.array(self._config.patch)
        center = rng.uniform(0, size)
        in_tumor = rng.random() < self._config.tumor_fraction
        jitter = rng.uniform(-0.25, 0.25, 3) * patch
        if in_tumor and points:
            tissue = points[int(rng.integers(len(points)))]
            # Off the center by up to a quarter, or a tumor would always lie in the middle.
            center = tissue[int(rng.integers(len(tissue)))] + jitter
        reach = np.abs(matrix) @ ((patch - 1) / 2)
        center = _held(center, reach, size)
        low = np.clip(np.floor(center - reach) - 1, 0, size - 1).astype(int)
        high = np.clip(np.ceil(center + reach) + 2, low + 1, size).astype(int)
        image, truth = self._box(index, low, high)
        grid = _grid(matrix, center - low, high - low, patch, self._device)
        image = functional.grid_sample(image[None], grid, mode="bilinear", align_corners=True)[0]
        marks = functional.grid_sample(
            truth[None, None].float(), grid, mode="nearest", align_corners=True
        )[0, 0]
        return image, self._channels[marks.long()]

    def _box(
        self, index: int, low: NDArray[np.int_], high: NDArray[np.int_]
    ) -> tuple[Tensor, Tensor]:
        """Return a part of a volume, ``(C, *S)`` float32 and ``(*S)`` uint8, on the device."""
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


def _held(
    center: NDArray[np.float64], reach: NDArray[np.float64], size: NDArray[np.int_]
) -> NDArray[np.float64]:
    """Move a patch so that it lies inside the volume, or the volume inside it, axis by axis.

    A network is asked about volumes that fill its input. From patches that hang over a border it
    would learn its norms' statistics on air.
    """
    ends = np.stack([reach, size - 1 - reach])
    return np.clip(center, ends.min(axis=0), ends.max(axis=0))


def random_matrix(rng: np.random.Generator, settings: Augmentation) -> NDArray[np.float64]:
    """Return ``(3, 3)`` that takes patch offsets to volume offsets: flips, zoom, rotation."""
    zoom = np.exp(rng.uniform(*np.log(settings.zoom)))
    stretch = settings.anisotropy ** rng.uniform(-1, 1, 3)
    flips = np.where((rng.random(3) < 0.5) & np.array(settings.flip), -1.0, 1.0)
    angles = np.radians(rng.uniform(-settings.rotation, settings.rotation, 3))
    matrix = np.diag(zoom * stretch * flips)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        one, two = (axis + 1) % 3, (axis + 2) % 3
        turn[one, one] = turn[two, two] = np.cos(angle)
        turn[one, two], turn[two, one] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def _grid(
    matrix: NDArray[np.float64],
    center: NDArray[np.float64],
    size: NDArray[np.int_],
    patch: NDArray[np.int_],
    device: torch.device,
) -> Tensor:
    """Return sampling points for ``grid_sample``, which counts from −1 to 1 and last axis first."""
    half = np.maximum(size - 1, 1) / 2
    linear = matrix * ((patch - 1) / 2)[None, :] / half[:, None]
    offset = center / half - 1
    theta = np.concatenate([linear[::-1, ::-1], offset[::-1, None]], axis=1)
    rows = torch.as_tensor(theta.copy(), dtype=torch.float32, device=device)[None]
    return functional.affine_grid(rows, [1, 1, *map(int, patch)], align_corners=True)


def _tumor_points(truth: NDArray[np.uint8], rng: np.random.Generator) -> list[NDArray[np.int_]]:
    """Return, for each tumor class that is there, up to some thousand of its voxels."""
    found = []
    whole = np.asarray(truth)
    for tissue in range(1, len(CLASSES)):
        where = np.flatnonzero(whole == tissue)
        if len(where):
            where = rng.choice(where, min(_POINTS, len(where)), replace=False)
            found.append(np.stack(np.unravel_index(where, whole.shape), axis=1))
    return found


def _upload(cases: Sequence[Prepared], device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Return all volumes on the GPU, or nothing where they do not fit or there is none."""
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
