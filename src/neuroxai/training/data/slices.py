"""Random axial slices for the grading network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from neuroxai.core.errors import TrainingError
from neuroxai.data.case import CLASSES
from neuroxai.training.config.config import Config
from neuroxai.training.data.augment import vary_intensity
from neuroxai.training.data.cases import Prepared

TrainingModule = tuple[Tensor, tuple[Tensor, Tensor]]
"""Slices ``(B, C, X, Y)``; their classes ``(B,)`` and tissue shares ``(B, T, X, Y)``."""


class SliceBatches:
    """Endless batches of slices, their classes in balance, and the tissues in them.

    The first ``focus_steps`` batches show squares cut around the tumor: a network that starts from
    nothing first has to find out what matters, and learns that faster, and at a fifth of the cost,
    where the rest of the brain is not in the way. Whole slices follow, which is what it will be
    given. Batch n is a function of the seed and n alone.

    Parameters
    ----------
    cases
        What to draw from: first a class, then a case of it, then one of its slices.
    config
        Batch size, augmentation, seed, classes.
    device
        Where batches are made and left.

    Raises
    ------
    TrainingError
        If a class has no case.
    """

    def __init__(self, cases: Sequence[Prepared], config: Config, device: torch.device) -> None:
        self._config = config
        self._device = device
        filled = [case for case in cases if len(case.truth)]
        self._images = [torch.from_numpy(np.array(case.images)).to(device) for case in filled]
        self._tissue = [torch.from_numpy(np.array(case.truth)).to(device) for case in filled]
        self._of_class = [
            [index for index, case in enumerate(filled) if case.grade == each]
            for each in range(len(config.classes))
        ]
        for name, members in zip(config.classes, self._of_class, strict=True):
            if not members:
                raise TrainingError(f"no case of the class {name} to train on")

    def batch(self, number: int) -> TrainingModule:
        """Return batch ``number``."""
        config = self._config
        rng = np.random.default_rng([config.seed, 1, number])
        grades = rng.permutation(np.arange(config.batch) % len(config.classes))
        chosen = []
        for grade in grades:
            members = self._of_class[int(grade)]
            index = members[int(rng.integers(len(members)))]
            place = int(rng.integers(len(self._images[index])))
            tissue = self._tissue[index][place].long()
            shares = functional.one_hot(tissue, len(CLASSES)).movedim(-1, 0)
            both = torch.cat([self._images[index][place].float(), shares.float()])
            if number < config.focus_steps:
                both = self._square(both, tissue, rng)
            chosen.append(both)
        moved = self._move(torch.stack(chosen), rng)
        channels = moved.shape[1] - len(CLASSES)
        x = vary_intensity(moved[:, :channels], rng, config.augmentation)
        return x, (torch.as_tensor(grades, device=self._device), moved[:, channels:])

    def _square(self, slice_: Tensor, tissue: Tensor, rng: np.random.Generator) -> Tensor:
        """Cut a square about the middle of the tumor, off it by up to a sixth of its side."""
        side = self._config.focus_size
        where = torch.nonzero(tissue).cpu().numpy()
        size = np.array(tissue.shape)
        middle = (where.min(axis=0) + where.max(axis=0) + 1) / 2 if len(where) else size / 2
        middle = middle + rng.uniform(-side / 6, side / 6, 2)
        low = np.clip(np.rint(middle - side / 2), 0, np.maximum(size - side, 0)).astype(int)
        x, y = (slice(int(first), int(first) + side) for first in low)
        return slice_[:, x, y]

    def _move(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        """Flip, turn and zoom each slice about its center."""
        settings = self._config.augmentation
        count = len(x)
        least, most = np.log(settings.zoom)
        zoom = np.exp(rng.uniform(least, most, (count, 1)))
        zoom = zoom * settings.anisotropy ** rng.uniform(-1, 1, (count, 2))
        flips = np.where((rng.random((count, 2)) < 0.5) & np.array(settings.flip[:2]), -1, 1)
        angle = np.radians(rng.uniform(-settings.rotation, settings.rotation, count))
        cos, sin = np.cos(angle), np.sin(angle)
        # Angles are measured in voxels, so a slice that is not square stays undistorted.
        ratio = x.shape[-2] / x.shape[-1]
        scale = zoom * flips
        theta = np.zeros((count, 2, 3))
        theta[:, 0, 0], theta[:, 0, 1] = cos * scale[:, 1], -sin * scale[:, 0] * ratio
        theta[:, 1, 0], theta[:, 1, 1] = sin * scale[:, 1] / ratio, cos * scale[:, 0]
        rows = torch.as_tensor(theta, dtype=x.dtype, device=x.device)
        grid = functional.affine_grid(rows, list(x.shape), align_corners=True)
        return functional.grid_sample(x, grid, align_corners=True)
