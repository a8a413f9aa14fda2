"""Tissue contrasts of each modality, and the images without scanner effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroxai.data.case import MODALITIES
from neuroxai.data.phantom.anatomy import Tissues
from neuroxai.data.phantom.field import Array, Axes, Field, distances, ramp, smooth_noise, stream
from neuroxai.data.phantom.tumor import Tumor
from neuroxai.data.phantom.variety import TYPICAL, Variety

Box = tuple[slice, slice, slice]

RATIOS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "T1": {
        "CSF": (0.15, 0.45), "GM": (0.62, 0.92), "NCR": (0.50, 0.80), "NET": (0.62, 0.88),
        "ED": (0.58, 0.93), "ET": (0.55, 0.98), "vessel": (0.3, 0.9), "dura": (0.3, 1.0),
    },
    "T1ce": {
        "CSF": (0.15, 0.45), "GM": (0.66, 1.05), "NCR": (0.48, 0.85), "NET": (0.62, 0.92),
        "ED": (0.58, 0.97), "ET": (1.20, 2.40), "vessel": (1.3, 3.2), "dura": (0.8, 2.4),
    },
    "T2": {
        "CSF": (1.80, 3.40), "GM": (1.05, 1.55), "NCR": (1.25, 2.70), "NET": (1.30, 2.20),
        "ED": (1.18, 2.30), "ET": (1.05, 1.90), "vessel": (0.2, 1.0), "dura": (0.5, 2.5),
    },
    "FLAIR": {
        "CSF": (0.10, 0.55), "GM": (0.98, 1.35), "NCR": (0.60, 1.80), "NET": (1.15, 1.95),
        "ED": (1.15, 2.30), "ET": (1.05, 1.95), "vessel": (0.2, 0.9), "dura": (0.3, 1.6),
    },
}  # fmt: skip
"""Range of the signal of each tissue, by modality, relative to white matter, or relative to edema
for the tissues in :data:`DARKER_THAN_EDEMA`."""

DARKER_THAN_EDEMA = {"T1": ("NCR", "NET"), "T1ce": ("NCR", "NET")}
"""Non-enhancing core is darker than the surrounding edema on T1 and T1ce.

Raters delineate the core by its low signal on T1 (Menze et al. 2015,
doi:10.1109/TMI.2014.2377694). If its signal were independent of that of the edema, the two could
not be distinguished.
"""

SWAPPED_GRAY = {"T1": (1.02, 1.3), "T1ce": (1.02, 1.3), "T2": (0.75, 0.98), "FLAIR": (0.7, 0.96)}
"""Signal of gray matter relative to white matter for inverted contrast."""

WHITE = {"T1": 0.85, "T1ce": 0.80, "T2": 0.45, "FLAIR": 0.50}
"""Signal of white matter before scaling to scanner units."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Maps from which the images are synthesized, on one grid ``(X, Y, Z)``."""

    tissues: Tissues
    brain: NDArray[np.bool_]
    vessels: Array
    dura: Array
    lesions: Array
    """Non-tumor white-matter lesions: bright on T2 and FLAIR, labeled as background."""
    spots: Mapping[str, Array]
    """Hyperintense spots by modality."""
    tumor: Tumor | None
    box: Box | None
    """Position of the tumor arrays in the grid."""


def draw_signals(seed: int, variety: Variety = TYPICAL) -> dict[str, dict[str, float]]:
    """Draw the signal of each tissue on each modality."""
    generator = stream(seed, "contrast")
    signals: dict[str, dict[str, float]] = {}
    for modality in MODALITIES:
        white = WHITE[modality]
        signals[modality] = {
            tissue: white * float(generator.uniform(*_range(modality, tissue, variety)))
            for tissue in RATIOS[modality]
        }
        for tissue in DARKER_THAN_EDEMA.get(modality, ()):
            signals[modality][tissue] *= signals[modality]["ED"] / white
        signals[modality]["WM"] = white
    _fill_core(signals, variety, stream(seed, "core"))
    bright = stream(seed, "bright spots").uniform(1.5, 6.0, len(MODALITIES))
    for modality, ratio in zip(MODALITIES, bright, strict=True):
        signals[modality]["spot"] = WHITE[modality] * float(ratio)
    return signals


def _range(modality: str, tissue: str, variety: Variety) -> tuple[float, float]:
    """Return the range of the signal of a tissue, relative to white matter or edema."""
    low, high = RATIOS[modality][tissue]
    if tissue == "GM" and modality in variety.swapped_contrast:
        return SWAPPED_GRAY[modality]
    if variety.skull_remnants and tissue == "dura":
        return 0.5, 4.0
    # The lower limits of tumor tissues stay, so that they remain distinct from their surroundings.
    lower = 1 - 0.3 * variety.contrast_spread if tissue in ("CSF", "GM", "vessel", "dura") else 1.0
    darker = tissue in DARKER_THAN_EDEMA.get(modality, ())
    return low * lower, high * (1.0 if darker else 1 + 0.3 * variety.contrast_spread)


def _fill_core(
    signals: dict[str, dict[str, float]], variety: Variety, generator: np.random.Generator
) -> None:
    """Set the signal of the necrotic core to fluid or old blood, in place."""
    share = float(generator.uniform(0.75, 1.0))
    bright, dark = generator.uniform(1.1, 1.7), generator.uniform(0.4, 1.2, 2)
    if variety.core == "cyst":
        for modality, table in signals.items():
            # Protein makes cysts brighter than the ventricles on FLAIR.
            fluid = table["CSF"] if modality != "FLAIR" else table["CSF"] + 0.25 * table["WM"]
            table["NCR"] = share * fluid + (1 - share) * table["NCR"]
    elif variety.core == "blood":
        signals["T1"]["NCR"] = float(bright) * signals["T1"]["WM"]
        signals["T1ce"]["NCR"] = float(bright) * signals["T1ce"]["WM"]
        for modality, ratio in zip(("T2", "FLAIR"), dark, strict=True):
            signals[modality]["NCR"] = float(ratio) * signals[modality]["WM"]


def draw_sulci(seed: int, tissues: Tissues, axes: Axes) -> Tissues:
    """Add thin sulci filled with CSF to the cortex, which the averaged template lacks."""
    generator = stream(seed, "sulci")
    amount = float(generator.uniform(0.0, 0.9))
    sheets = smooth_noise(generator, 4.5).on(axes)
    sheets *= sheets
    sheets *= np.float32(-1 / (2 * 0.16**2))
    np.exp(sheets, out=sheets)
    sheets *= ramp(18 - tissues.depth, 5) * np.float32(amount) * tissues.gray
    gray = tissues.gray - sheets
    return Tissues(tissues.csf + sheets, gray, tissues.white, tissues.depth, tissues.texture)


def draw_scene(
    seed: int,
    tissues: Tissues,
    tumor: Tumor | None,
    box: Box | None,
    axes: Axes,
    variety: Variety = TYPICAL,
) -> Scene:
    """Add vessels, patches of dura, white-matter lesions and hyperintense spots."""
    generator = stream(seed, "surroundings")
    depth = tissues.depth
    has_dura, patches = generator.random() < 0.45, smooth_noise(generator, 9.0)
    extent = float(generator.uniform(0.5, 3.0))
    brain = depth > 0
    dura = np.zeros_like(depth)
    reach, least = (4.4, 0.5) if variety.skull_remnants else (extent, 0.9)
    if has_dura or variety.skull_remnants:
        shell = ((depth > -reach) & (depth < 1.0) & (patches.on(axes) > least)).astype(np.float32)
        brain |= shell > 0
        dura = shell
    if variety.overstripping:
        cut = smooth_noise(stream(seed, "stripping"), 14.0).on(axes) > 0.6
        brain &= ~(cut & (depth < variety.overstripping))
    first, second = smooth_noise(generator, 6.0), smooth_noise(generator, 6.0)
    width = float(generator.uniform(0.10, 0.22))
    vessels = np.exp(-(first.on(axes) ** 2 + second.on(axes) ** 2) / (2 * width**2))
    vessels *= np.clip(tissues.csf + np.float32(0.25) * tissues.gray, 0, 1) * brain
    lesions = _draw_lesions(generator, tissues, axes)
    spots = _draw_spots(seed, variety.bright_spots, brain, axes)
    return Scene(tissues, brain, vessels, dura, lesions, spots, tumor, box)


def synthesize_images(
    seed: int, scene: Scene, signals: Mapping[str, Mapping[str, float]]
) -> dict[str, Array]:
    """Return the image of every modality, without scanner effects."""
    generator = stream(seed, "paint")
    images: dict[str, Array] = {}
    tissues = scene.tissues
    strength = {m: float(generator.uniform(-0.5, 0.5)) for m in MODALITIES}
    strength["T1"], strength["T1ce"] = generator.uniform(0.2, 1.0), generator.uniform(-0.2, 0.9)
    lesion = float(generator.uniform(0.15, 0.7))
    for modality in MODALITIES:
        s = {tissue: np.float32(value) for tissue, value in signals[modality].items()}
        image = tissues.csf * s["CSF"]
        image += tissues.gray * s["GM"]
        image += tissues.white * s["WM"]
        image += tissues.texture * np.float32(strength[modality])
        if modality in ("T2", "FLAIR"):
            image += scene.lesions * (lesion * (s["ED"] - s["WM"]))
        if scene.tumor is not None and scene.box is not None:
            t, inside = scene.tumor, image[scene.box]
            edema = t.edema * t.shade
            inside *= 1 - (t.necrosis + t.solid + t.rim + edema + t.cavity)
            inside += t.necrosis * s["NCR"] + t.solid * s["NET"] + t.cavity * s["CSF"]
            inside += t.rim * s["ET"] + edema * s["ED"]
        image += scene.vessels * (s["vessel"] - image)
        image += scene.dura * (s["dura"] - image)
        if modality in scene.spots:
            image += scene.spots[modality] * (s["spot"] - image)
        images[modality] = image
    return images


def add_texture(seed: int, images: dict[str, Array], scene: Scene, axes: Axes) -> None:
    """Add fine texture to the brain and coarse texture to the tumor, in place."""
    generator = stream(seed, "grain")
    grains = [smooth_noise(generator, float(generator.uniform(1.8, 4.0))) for _ in range(2)]
    coarse: list[Field] = [smooth_noise(generator, float(generator.uniform(2.5, 6))) for _ in "ab"]
    sampled = [grain.on(axes) for grain in grains]
    mottling: dict[str, NDArray[np.float64]] = {}
    for modality in MODALITIES:
        image = images[modality]
        a, b = generator.uniform(-0.035, 0.035, 2)
        image *= 1 + np.float32(a) * sampled[0] + np.float32(b) * sampled[1]
        mottling[modality] = generator.uniform(-0.16, 0.16, 2)
        # Brighter on T1ce than on T1 means enhancement, so both have the same tumor texture.
        weights = mottling["T1" if modality == "T1ce" else modality]
        if scene.tumor is not None and scene.box is not None:
            t, box = scene.tumor, scene.box
            near = (axes[0][box[0]], axes[1][box[1]], axes[2][box[2]])
            core = t.necrosis + t.solid + t.rim + np.float32(0.35) * t.edema
            for weight, field in zip(weights, coarse, strict=True):
                image[box] *= 1 + np.float32(weight) * core * np.clip(field.on(near), -2.5, 2.5)


def _draw_spots(seed: int, count: int, brain: NDArray[np.bool_], axes: Axes) -> dict[str, Array]:
    """Draw hyperintense spots at the brain surface, each on one modality."""
    generator = stream(seed, "spots")
    spots: dict[str, Array] = {}
    for _ in range(count):
        modality = str(generator.choice(MODALITIES))
        direction = generator.standard_normal(3)
        direction /= np.linalg.norm(direction)
        radius = float(generator.uniform(1.0, 3.0))
        # Along a ray from the center: the last point in the brain.
        path = direction[None, :] * np.arange(0, 100, 1.0)[:, None]
        index = [
            np.clip(np.rint((path[:, n] - axis[0]) / (axis[1] - axis[0])), 0, axis.size - 1)
            for n, axis in enumerate(axes)
        ]
        x, y, z = (places.astype(int) for places in index)
        inside = np.flatnonzero(brain[x, y, z])
        if not inside.size:
            continue
        blob = ramp(radius - distances(axes, path[inside[-1]]), 0.8)
        spots[modality] = np.maximum(spots[modality], blob) if modality in spots else blob
    return spots


def _draw_lesions(generator: np.random.Generator, tissues: Tissues, axes: Axes) -> Array:
    """Draw small age-related white-matter lesions, in 40 % of the brains."""
    lesions = np.zeros_like(tissues.white)
    count = int(generator.integers(1, 9)) if generator.random() < 0.4 else 0
    for _ in range(count):
        center = generator.uniform([-40, -60, -5], [40, 50, 45])
        radius = float(generator.uniform(1.5, 4.0))
        near = [
            np.flatnonzero(np.abs(axis - middle) < 3 * radius)
            for axis, middle in zip(axes, center, strict=True)
        ]
        if any(index.size == 0 for index in near):
            continue
        i, j, k = (slice(int(index[0]), int(index[-1]) + 1) for index in near)
        box, points = (i, j, k), (axes[0][i], axes[1][j], axes[2][k])
        blob = ramp(radius - distances(points, center), 1.2) * tissues.white[box]
        lesions[box] = np.maximum(lesions[box], blob)
    return lesions
