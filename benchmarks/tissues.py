"""Accuracy of tissue segmentation on T1: Dice with the ground truth on phantoms of 2 mm.

python benchmarks/tissues.py [PHANTOMS]
"""

from __future__ import annotations

import sys

import numpy as np

from neuroxai.data.phantom import make_phantom
from neuroxai.data.tissues import TISSUES, segment_tissues

FIRST_SEED = 600_000


def main(count: int) -> None:
    """Print the mean and lowest Dice of each tissue."""
    scores = []
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        phantom = make_phantom(seed, spacing=2.0)
        found = segment_tissues(phantom.case)
        if found is None:
            raise SystemExit(f"phantom {seed} has no contrast on T1")
        tumor = phantom.case.truth > 0 if phantom.case.truth is not None else False
        truth = np.where(phantom.case.brain() & ~tumor, phantom.tissues, 0)
        scores.append([
            2 * ((found == k) & (truth == k)).sum() / ((found == k).sum() + (truth == k).sum())
            for k in range(1, len(TISSUES) + 1)
        ])  # fmt: skip
    print(f"{count} phantoms of 2 mm, seeds from {FIRST_SEED}; mean and lowest Dice")
    for name, values in zip(TISSUES, np.transpose(scores), strict=True):
        print(f"{name:4s} {values.mean():.3f} {values.min():.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
