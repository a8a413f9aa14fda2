"""Unusual features of wide phantoms: atypical tumors, contrasts and processing errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from neuroxai.data.case import MODALITIES
from neuroxai.data.phantom.field import stream

Location = Literal["anywhere", "surface", "ventricles"]
Core = Literal["typical", "cyst", "blood"]


@dataclass(frozen=True)
class Variety:
    """Deviations of a phantom from the typical case.

    Wide phantoms implement domain randomization: a network trained on images far beyond the
    realistic range generalizes to real ones (Billot et al. 2023,
    doi:10.1016/j.media.2023.102789). Label definitions are preserved: edema is brighter than
    white matter on FLAIR, and enhancing tumor is brighter on T1ce than on T1.
    """

    location: Location = "anywhere"
    """Origin of the tumor: deep white matter (anywhere), brain surface or ventricle wall."""
    core: Core = "typical"
    """Content of the core; a cyst has the signal of CSF, old blood is bright on T1."""
    enhances: bool = True
    """False for a high-grade tumor without enhancement."""
    resection_margin: float | None = None
    """Thickness in mm of the residual tumor around a resection cavity; None before surgery."""
    atrophy: float = 0.0
    """Additional enlargement of the ventricles by age, in mm."""
    swapped_contrast: tuple[str, ...] = ()
    """Modalities with inverted contrast of gray and white matter."""
    contrast_spread: float = 0.0
    """Extension of the intensity ranges beyond the typical ones, 0 to 1."""
    skull_remnants: bool = False
    """Whether patches of skull and scalp remain, brighter than the brain."""
    overstripping: float = 0.0
    """Depth in mm of brain removed in places by skull stripping."""
    bright_spots: int = 0
    """Number of small hyperintense spots, as from flow and fat."""


TYPICAL = Variety()


def draw_variety(seed: int) -> Variety:
    """Draw the deviations of a wide phantom; each kind occurs in some phantoms only."""
    generator = stream(seed, "variety")
    chance = generator.random(16)
    atrophy, spread, stripped, margin = generator.random(4)
    spots = int(generator.integers(1, 7))
    location: Location = "anywhere"
    if chance[0] < 0.4:
        location = "surface" if chance[0] < 0.2 else "ventricles"
    core: Core = "cyst" if chance[1] < 0.15 else "blood" if chance[1] < 0.25 else "typical"
    return Variety(
        location=location,
        core=core,
        enhances=bool(chance[2] >= 0.1),
        resection_margin=6.0 * float(margin) if chance[3] < 0.1 else None,
        atrophy=3.0 + 6.0 * float(atrophy) if chance[4] < 0.25 else 0.0,
        swapped_contrast=tuple(m for m, c in zip(MODALITIES, chance[8:12], strict=True) if c < 0.1),
        contrast_spread=float(spread) if chance[5] < 0.7 else 0.0,
        skull_remnants=bool(chance[6] < 0.25),
        overstripping=0.5 + 3.5 * float(stripped) if chance[7] < 0.25 else 0.0,
        bright_spots=spots if chance[12] < 0.4 else 0,
    )
