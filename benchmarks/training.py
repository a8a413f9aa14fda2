"""Training on the CPU: time spent waiting for data, augmentation against MONAI, phantoms.

python benchmarks/training.py
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import monai.transforms as mt
import numpy as np
import torch
from measure import Row, Table, Work, median, seconds, spread

from neuroxai import tune_allocator
from neuroxai.data.phantom import make_phantom
from neuroxai.training import read_config, train
from neuroxai.training.data.cases import PreparedCase, prepare_cases
from neuroxai.training.data.patches import PatchBatches

PATCH, BATCH, STEPS = (64, 96, 64), 3, 40
SEGMENTATION = (
    "data.phantom.train=[0,6]", "data.phantom.test=[100000,100000]", "data.phantom.spacings=[2.0]",
    f"patch={list(PATCH)}", f"batch={BATCH}", f"max_steps={STEPS}", "max_minutes=null",
    "save_every=1000",
)  # fmt: skip
GRADING = (
    "data.phantom.train=[200000,200016]", "data.phantom.test=[300000,300000]", f"max_steps={STEPS}",
    "focus_steps=0",
)  # fmt: skip


def main() -> None:
    """Measure and write."""
    tune_allocator()
    table = Table("training")
    for name, settings in (("phantom-segmentation", SEGMENTATION), ("phantom-grading", GRADING)):
        with tempfile.TemporaryDirectory() as folder:
            card = train(name, Path(folder) / "run", overrides=settings) / "card.json"
            training = json.loads(card.read_text())["training"]
        taken = training["seconds"]["training"]
        waited = training["waiting_for_data"] * taken
        detail = f"{STEPS} steps, {taken / STEPS:.2f} s per step"
        table.add(Row(f"waiting for data, {name}", "total time of training", waited, taken,
                      bar=0.05, detail=detail))  # fmt: skip
    _batches(table)
    times = [seconds(partial(make_phantom, seed)) for seed in range(9)][1:]
    table.add(Row("a phantom of 1 mm, one process", "bar", median(times), 3.0, bar=1.0,
                  detail=spread(times)))  # fmt: skip
    times = [seconds(partial(make_phantom, seed, wide=True)) for seed in range(8)]
    table.add(Row("a wide phantom of 1 mm", "bar", median(times), 3.0, bar=1.0,
                  detail=spread(times)))  # fmt: skip
    table.write()


def _batches(table: Table) -> None:
    """Measure a batch of augmented patches against MONAI's transforms."""
    config = read_config("phantom-segmentation", overrides=SEGMENTATION)
    cases = prepare_cases(config).train
    ours = PatchBatches(cases, config, torch.device("cpu"))
    theirs = _monai(cases)
    numbers = iter(range(100))
    ours.batch(0)
    theirs()
    mine, others = [], []
    for _ in range(8):
        mine.append(seconds(lambda: ours.batch(next(numbers))))
        others.append(seconds(theirs))
    table.add(Row(f"a batch of {BATCH} patches of {'×'.join(map(str, PATCH))}",
                  "equivalent MONAI transforms", median(mine), median(others),
                  detail=f"ours {spread(mine)}"))  # fmt: skip


def _monai(cases: Sequence[PreparedCase]) -> Work:
    """Return a function that makes the same batch with MONAI's dictionary transforms."""
    keys, image = ("image", "label"), ("image",)
    turn = float(np.radians(12))
    transform = mt.Compose([
        mt.EnsureTyped(keys),
        mt.RandAffined(
            keys, prob=1.0, rotate_range=(turn,) * 3, scale_range=(0.25,) * 3,
            translate_range=(10, 10, 10), spatial_size=PATCH, mode=("bilinear", "nearest"),
            padding_mode="zeros",
        ),
        *(mt.RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)),
        mt.RandAdjustContrastd(image, prob=0.5, gamma=(0.65, 1.55)),
        mt.RandScaleIntensityd(image, factors=0.3, prob=0.5),
        mt.RandShiftIntensityd(image, offsets=0.1, prob=0.5),
        mt.RandBiasFieldd(image, prob=0.5, coeff_range=(0.0, 0.25)),
        mt.RandGaussianSmoothd(image, prob=0.5),
        mt.RandGaussianNoised(image, prob=0.5, std=0.06),
    ])  # fmt: skip
    turns = iter(range(10**6))

    def batch() -> torch.Tensor:
        made = []
        for _ in range(BATCH):
            case = cases[next(turns) % len(cases)]
            given = {
                "image": np.array(case.images, dtype=np.float32),
                "label": np.array(case.truth)[None],
            }
            made.append(transform(given)["image"])
        return torch.stack(made)

    return batch


if __name__ == "__main__":
    main()
