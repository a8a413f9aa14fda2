"""Data model of a case: co-registered modalities of one study, with labels and metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.vocabulary import CLASSES, MODALITIES, REGIONS
from neuroxai.data.case_quality import CaseQuality
from neuroxai.data.layouts import Layout

__all__ = ["CLASSES", "MODALITIES", "REGIONS", "Case", "Grade", "Source", "region"]

Grade = Literal["HGG", "LGG"]


def region(labels: NDArray[np.uint8], name: str) -> NDArray[np.bool_]:
    """Return the mask of a region in an array of class indices.

    Examples
    --------
    >>> region(np.array([0, 1, 2, 3], np.uint8), "TC").tolist()
    [False, True, False, True]
    """
    return np.isin(labels, [CLASSES.index(member) for member in REGIONS[name]])


@dataclass(frozen=True)
class Source:
    """File that a volume was read from.

    Attributes
    ----------
    path
        Path of the file.
    sha256
        Hash of its bytes.
    resampled
        How it was resampled to the grid of the case, as one sentence; None if it was not.
    """

    path: str
    sha256: str
    resampled: str | None = None

    def describe(self) -> dict[str, Any]:
        """Return file name, hash and resampling, ready for JSON."""
        described: dict[str, Any] = {"file": Path(self.path).name, "sha256": self.sha256}
        return described if self.resampled is None else {**described, "resampled": self.resampled}


@dataclass(frozen=True, eq=False)
class Case:
    """One study, with all volumes on one grid.

    Attributes
    ----------
    name
        Case name, used in the names of all result files.
    volumes
        Modality name to a float32 array ``(I, J, K)``; all share shape and ``affine``.
    affine
        ``(4, 4)``, voxel index to millimeters in RAS+ world space.
    layout
        File names and label values on disk; results use the same.
    truth
        ``(I, J, K)`` uint8 **indices into** :data:`CLASSES` (not the label values of the file),
        or None.
    grade
        ``HGG``, ``LGG`` or None.
    sources
        Modality name (or ``truth``) to its file; empty for a case made in memory.
    warnings
        Irregularities that do not prevent use, one sentence each, naming the file.
    category
        Class of a 2D picture, the name of its folder; None for a scan.
    laterality_known
        Whether left and right of the patient are known; False for pictures.
    quality
        Result of the check of the scan; None before :func:`neuroxai.quality.checked`.
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
    quality: CaseQuality | None = None

    def describe_quality(self) -> dict[str, Any] | None:
        """Return :attr:`quality`, ready for JSON."""
        return None if self.quality is None else self.quality.describe()

    @property
    def label(self) -> str | None:
        """Ground-truth class of the whole case: the category of a picture or the tumor grade."""
        return self.category or self.grade

    @property
    def shape(self) -> tuple[int, int, int]:
        """Grid size ``(I, J, K)``, shared by all volumes."""
        i, j, k = next(iter(self.volumes.values())).shape
        return int(i), int(j), int(k)

    def brain(self) -> NDArray[np.bool_]:
        """Return the brain mask ``(I, J, K)``: voxels that are nonzero in any modality."""
        brain = np.zeros(self.shape, dtype=bool)
        for volume in self.volumes.values():
            brain |= volume != 0
        return brain

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along I, J, K."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)
