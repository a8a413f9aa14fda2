"""One patient's study: modalities on one grid, their affine, and what is known about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.vocabulary import CLASSES, MODALITIES, REGIONS

__all__ = ["CLASSES", "MODALITIES", "REGIONS", "Case", "Grade", "Layout", "Source", "region"]

Grade = Literal["HGG", "LGG"]


def region(labels: NDArray[np.uint8], name: str) -> NDArray[np.bool_]:
    """Return where class indices belong to a region.

    Examples
    --------
    >>> region(np.array([0, 1, 2, 3], np.uint8), "TC").tolist()
    [False, True, False, True]
    """
    return np.isin(labels, [CLASSES.index(member) for member in REGIONS[name]])


@dataclass(frozen=True)
class Layout:
    """A year's way of naming files and numbering labels.

    The numbers mean different things in different years (4 is enhancing tumor up to 2021 and a
    resection cavity in 2024), so labels are always read through the layout.
    """

    name: str
    labels: Mapping[str, int]
    """Class name to the number in the file, without the background."""
    suffixes: Mapping[str, str]
    """Modality name, and ``truth``, to the file's ending, for example ``T1ce`` to ``t1ce``."""
    separator: str = "_"


@dataclass(frozen=True)
class Source:
    """Where a volume came from; the hash pins the very bytes."""

    path: str
    sha256: str


@dataclass(frozen=True, eq=False)
class Case:
    """One study on one grid.

    Attributes
    ----------
    name
        The case's name, used in the names of all results.
    volumes
        Modality name to a float32 array ``(I, J, K)``; all share shape and ``affine``.
    affine
        ``(4, 4)``, voxel index to millimeters in RAS+ world space.
    layout
        How the case is named and numbered on disk; results follow it.
    truth
        ``(I, J, K)`` uint8, **indices into** :data:`CLASSES` (never the file's numbers), or None.
    grade
        ``HGG``, ``LGG`` or None.
    sources
        Modality name (and ``truth``) to its file, empty for a case made in memory.
    warnings
        What is odd about the case but safe to use, a sentence each, naming the file.
    category
        The class that a picture's folder names; None for a scan.
    laterality_known
        Whether it is known which side of the patient is where; a picture does not say.
    """

    name: str
    volumes: Mapping[str, NDArray[np.float32]]
    affine: NDArray[np.float64]
    layout: Layout
    truth: NDArray[np.uint8] | None = None
    grade: Grade | None = None
    sources: Mapping[str, Source] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    category: str | None = None
    laterality_known: bool = True

    @property
    def label(self) -> str | None:
        """The true class of the whole case: a picture's category, or a tumor's grade."""
        return self.category or self.grade

    @property
    def shape(self) -> tuple[int, int, int]:
        """The grid ``(I, J, K)`` that all volumes share."""
        i, j, k = next(iter(self.volumes.values())).shape
        return int(i), int(j), int(k)

    def brain(self) -> NDArray[np.bool_]:
        """Return where any modality is not zero, ``(I, J, K)``: all that is not air."""
        brain = np.zeros(self.shape, dtype=bool)
        for volume in self.volumes.values():
            brain |= volume != 0
        return brain

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along I, J, K."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)
