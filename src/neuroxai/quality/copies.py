"""The same image twice under two names."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from neuroxai.data.case_quality import Alarm, Finding
from neuroxai.quality.coarse import CannotTellError, CoarseCase

_SAME = 0.9995
"""Rank correlation; two sequences of one brain reach 0.97, copies in other units 1."""


def copies(scan: CoarseCase) -> Iterator[Finding]:
    """Find sequences that are copies of each other, also in other units or another window."""
    scan.require_volume()
    if len(scan.sequences) < 2:
        raise CannotTellError("needs several sequences")
    ranks = {name: each - each.mean() for name, each in scan.gauss_ranks.items()}
    for one, other in itertools.combinations(ranks, 2):
        a, b = ranks[one].astype(np.float64), ranks[other].astype(np.float64)
        size = float(np.sqrt((a @ a) * (b @ b)))
        found = float(a @ b) / size if size else 0.0
        if found > _SAME:
            yield Alarm(
                "copies", (one, other), "show the same image", "rank correlation", found, _SAME,
                "", "give the file of each sequence",
            )  # fmt: skip
