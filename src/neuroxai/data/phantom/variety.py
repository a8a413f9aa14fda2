"""What a cohort holds beside the typical case: drawn for a wide phantom, never for a typical."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from neuroxai.data.case import MODALITIES
from neuroxai.data.phantom.field import stream

Location = Literal["anywhere", "surface", "ventricles"]
Core = Literal["typical", "cyst", "blood"]


@dataclass(frozen=True)
class Variety:
    """How far one phantom is from the typical one.

    Wide phantoms follow the idea of domain randomization: what a network has seen drawn far beyond
    what is likely, it need not have seen as it is (Billot et al. 2023,
    doi:10.1016/j.media.2023.102789). What labels mean is kept: edema is brighter than white matter
    on FLAIR, what enhances is brighter on T1ce than on T1.
    """

    location: Location = "anywhere"
    """Where the tumor starts: in deep white matter, at the brain's surface, by the ventricles."""
    core: Core = "typical"
    """A cyst holds fluid like that of the ventricles; old blood is bright on plain T1."""
    enhances: bool = True
    """False for a high-grade tumor without enhancement."""
    resection_margin: float | None = None
    """Thickness in mm of what surgery has left around its cavity; None before surgery."""
    atrophy: float = 0.0
    """Millimeters by which age has widened the ventricles further."""
    swapped_contrast: tuple[str, ...] = ()
    """Modalities on which gray and white matter have changed places."""
    contrast_spread: float = 0.0
    """How far beyond the typical gray values are drawn, 0 to 1."""
    skull_remnants: bool = False
    """Whether skull and scalp are left here and there, brighter than any brain."""
    overstripping: float = 0.0
    """Millimeters of brain that were cut off with the skull, in places."""
    bright_spots: int = 0
    """Small places much brighter than all else, as flow and fat leave them."""


TYPICAL = Variety()


def draw_variety(seed: int) -> Variety:
    """Draw what is unusual about a wide phantom; every kind is there in some, none in all."""
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
