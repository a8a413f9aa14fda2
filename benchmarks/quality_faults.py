"""Faults planted in a case, with the checks that have to find each; used by quality.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from neuroxai.data.case import Case

Volumes = Mapping[str, NDArray[Any]]
Plant = Callable[[Case, Generator, Case], Volumes | None]
Change = Callable[[NDArray[np.float32], Case, Generator], NDArray[Any]]


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes
    ----------
    name
        What is wrong.
    checks
        Checks that may find it.
    plant
        Returns the changed volumes of a case, given a generator and another case; None if the case
        does not suit.
    whole
        Whether all sequences are changed; otherwise an alarm has to name a changed one.
    bar
        Whether at least 95 % of typical phantoms have to be found.
    """

    name: str
    checks: tuple[str, ...]
    plant: Plant
    whole: bool = False
    bar: bool = True


def planted(case: Case, volumes: Volumes) -> Case:
    """Return the case with changed volumes."""
    made = {name: np.ascontiguousarray(each, np.float32) for name, each in volumes.items()}
    return replace(case, volumes={**case.volumes, **made})


def _swap(one: str, other: str) -> Plant:
    return lambda case, random, stranger: {one: case.volumes[other], other: case.volumes[one]}


def _swap_enhancing(case: Case, random: Generator, stranger: Case) -> Volumes | None:
    ml = 0.0 if case.truth is None else (case.truth == 3).sum() * np.prod(case.spacing) / 1000
    return _swap("T1", "T1ce")(case, random, stranger) if ml >= 1 else None


def _swap_other(case: Case, random: Generator, stranger: Case) -> Volumes | None:
    found = _swap_enhancing(case, random, stranger)
    return _swap("T1", "T1ce")(case, random, stranger) if found is None else None


def _one(change: Change) -> Plant:
    def plant(case: Case, random: Generator, stranger: Case) -> Volumes:
        name = str(random.choice(list(case.volumes)))
        return {name: change(case.volumes[name], case, random)}

    return plant


def _every(change: Change) -> Plant:
    def plant(case: Case, random: Generator, stranger: Case) -> Volumes:
        seed = int(random.integers(2**31))
        return {
            name: change(each, case, np.random.default_rng(seed))
            for name, each in case.volumes.items()
        }

    return plant


def _shift(mm: float) -> Change:
    def change(image: NDArray[np.float32], case: Case, random: Generator) -> NDArray[Any]:
        axis, side = int(random.integers(3)), int(random.choice([-1, 1]))
        return np.roll(image, side * round(mm / case.spacing[axis]), axis)

    return change


def _turn(degrees: float) -> Change:
    def change(image: NDArray[np.float32], case: Case, random: Generator) -> NDArray[Any]:
        axes = [(0, 1), (0, 2), (1, 2)][int(random.integers(3))]
        # About the center of the brain, so that nothing is shifted.
        center = np.array(ndimage.center_of_mass(image > 0))
        angle = np.radians(degrees * random.choice([-1, 1]))
        matrix = np.eye(3)
        a, b = axes
        matrix[a, a] = matrix[b, b] = np.cos(angle)
        matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
        offset = center - matrix @ center
        turned: NDArray[np.float32] = ndimage.affine_transform(image, matrix, offset, order=1)
        return turned

    return change


def _mirror(image: NDArray[np.float32], case: Case, random: Generator) -> NDArray[Any]:
    return image[::-1]  # phantoms and BraTS store left and right along the first axis


def _noise(image: NDArray[np.float32], case: Case, random: Generator) -> NDArray[Any]:
    inside = image != 0
    noise = random.normal(image[inside].mean(), image[inside].std(), image.shape)
    return np.where(inside, noise.clip(1), 0)


def _stranger(case: Case, random: Generator, stranger: Case) -> Volumes | None:
    name = str(random.choice(list(case.volumes)))
    return None if stranger.shape != case.shape else {name: stranger.volumes[name]}


def _spike(image: NDArray[np.float32], case: Case, random: Generator) -> NDArray[Any]:
    changed = image.copy()
    place = np.argwhere(image != 0)
    changed[tuple(place[random.integers(len(place))])] = 1e30
    return changed


def _window(image: NDArray[np.float32], case: Case, random: Generator) -> NDArray[Any]:
    low, high = np.quantile(image[image != 0], (0.01, 0.99))
    return np.where(image != 0, np.rint(255 * ((image - low) / (high - low)).clip(0, 1)), 0)


def _z_score(image: NDArray[np.float32], case: Case, random: Generator) -> NDArray[Any]:
    inside = image != 0
    return np.where(inside, (image - image[inside].mean()) / image[inside].std(), 0)


def _labels(image: NDArray[np.float32], case: Case, random: Generator) -> NDArray[Any]:
    edges = np.quantile(image[image != 0], (0.2, 0.7))
    return np.where(image != 0, 1 + np.digitize(image, edges), 0)


def _ct(image: NDArray[np.float32], case: Case, random: Generator) -> NDArray[Any]:
    return np.where(image != 0, 30 + 10 * random.standard_normal(image.shape), -1000)


@lru_cache(maxsize=1)
def _around(case: Case) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the distance to the brain in mm, and the unit vector from its center, per voxel."""
    brain = ndimage.binary_fill_holes(case.brain())
    outside = ndimage.distance_transform_edt(~brain, sampling=case.spacing).astype(np.float32)
    center = np.array(ndimage.center_of_mass(brain), np.float32)
    grid = np.stack(np.meshgrid(*map(np.arange, case.shape), indexing="ij")).astype(np.float32)
    away = grid - center[:, None, None, None]
    return outside, away / np.maximum(np.sqrt((away**2).sum(axis=0)), 1e-6)


def head(
    image: NDArray[np.float32], case: Case, share: float, random: Generator
) -> NDArray[np.float32]:
    """Add 7 mm of bone and 7 mm of scalp around the brain, in a share of all directions."""
    outside, away = _around(case)
    # Not from below, where a head has a face and a neck.
    direction = random.standard_normal(3)
    direction[2] = abs(direction[2])
    direction /= np.linalg.norm(direction)
    # A cap with this share of the sphere.
    there = np.tensordot(direction.astype(np.float32), away, 1) > 1 - 2 * share
    middle = np.median(image[image > 0])
    texture = 1 + 0.1 * random.standard_normal(image.shape)
    bone = (outside > 0) & (outside <= 7) & there
    scalp = (outside > 7) & (outside <= 14) & there
    changed = np.where(bone, 0.06 * middle * texture, image)
    return np.where(scalp, 0.9 * middle * texture, changed).astype(np.float32)


def _head(share: float) -> Change:
    return lambda image, case, random: head(image, case, share, random)


def _cut(image: NDArray[np.float32], case: Case, random: Generator) -> NDArray[Any]:
    """Cut a quarter of the brain's height off, above or below."""
    inside = np.flatnonzero(case.brain().any(axis=(0, 1)))
    first, last = inside[0], inside[-1]
    changed = image.copy()
    if random.random() < 0.5:
        changed[:, :, last - (last - first) // 4 :] = 0
    else:
        changed[:, :, : first + (last - first) // 4] = 0
    return changed


def _copy(case: Case, random: Generator, stranger: Case) -> Volumes:
    one, other = random.choice(list(case.volumes), 2, replace=False)
    return {str(one): case.volumes[str(other)] * np.float32(1.7)}


def _no_contrast(case: Case, random: Generator, stranger: Case) -> Volumes:
    t1 = case.volumes["T1"]
    noise = 0.04 * t1[t1 > 0].mean() * random.standard_normal(t1.shape)
    return {"T1ce": np.where(t1 > 0, (t1 * 1.2 + noise).clip(1), 0)}


FAULTS = (
    Fault("head with its skull", ("volume",), _every(_head(1.0)), whole=True),
    Fault("one sequence with its skull", ("volume", "extent"), _one(_head(1.0))),
    Fault("a quarter of the skull left", ("skull", "volume"), _every(_head(0.25)), whole=True),
    Fault("a tenth of the skull left", ("skull",), _every(_head(0.1)), whole=True, bar=False),
    Fault("a quarter of the brain cut off", ("field of view", "volume"), _every(_cut), whole=True),
    Fault("one sequence cut", ("field of view", "extent"), _one(_cut)),
    Fault("T2 and FLAIR swapped", ("contrast",), _swap("T2", "FLAIR")),
    Fault("T1 and T2 swapped", ("contrast",), _swap("T1", "T2")),
    Fault("T1 and T1ce swapped, ET at least 1 ml", ("enhancement",), _swap_enhancing),
    Fault("T1 and T1ce swapped, other cases", ("enhancement",), _swap_other, bar=False),
    Fault("no contrast agent (a notice)", ("enhancement",), _no_contrast, bar=False),
    Fault("one sequence shifted by 4 mm", ("alignment",), _one(_shift(4))),
    Fault("one sequence shifted by 8 mm", ("alignment",), _one(_shift(8))),
    Fault("one sequence shifted by 16 mm", ("alignment",), _one(_shift(16))),
    Fault("one sequence turned by 5°", ("alignment",), _one(_turn(5))),
    Fault("one sequence turned by 10°", ("alignment",), _one(_turn(10))),
    Fault("one sequence mirrored", ("alignment",), _one(_mirror)),
    Fault("one sequence of another patient", ("alignment",), _stranger),
    Fault("noise in the brain's outline", ("alignment",), _one(_noise)),
    Fault("the same file twice", ("copies",), _copy),
    Fault("one voxel of 1e30", ("numbers",), _one(_spike)),
    Fault("an 8-bit window", ("numbers",), _one(_window)),
    Fault("a z-score", ("numbers",), _one(_z_score)),
    Fault("a label map", ("numbers",), _one(_labels)),
    Fault("a CT", ("numbers",), _one(_ct)),
)  # fmt: skip


def cavity(case: Case, random: Generator) -> Case:
    """Return the case with a cavity of 15 to 25 mm radius at the surface, filled with fluid."""
    brain = ndimage.binary_fill_holes(case.brain())
    depth = ndimage.distance_transform_edt(brain, sampling=case.spacing)
    place = np.argwhere((depth > 8) & (depth < 14))
    center = place[random.integers(len(place))]
    grid = np.stack(np.meshgrid(*map(np.arange, case.shape), indexing="ij"))
    step = np.array(case.spacing)[:, None, None, None]
    away = np.sqrt((((grid - center[:, None, None, None]) * step) ** 2).sum(axis=0))
    hole = (away < random.uniform(15, 25)) & (case.brain())
    changed = {}
    for name, image in case.volumes.items():
        level = np.quantile(image[case.brain()], 0.98 if name == "T2" else 0.04)
        changed[name] = np.where(hole, level * random.normal(1, 0.05, image.shape).clip(0.5), image)
    return planted(case, changed)


def scraps(case: Case, random: Generator) -> Case:
    """Return the case with four scraps of scalp, each 1 % of the surface."""
    changed: dict[str, NDArray[Any]] = dict(case.volumes)
    for _ in range(4):
        seed = int(random.integers(2**31))
        changed = {
            name: head(each, case, 0.01, np.random.default_rng(seed))
            for name, each in changed.items()
        }
    return planted(case, changed)


def thick_slices(case: Case, random: Generator) -> Case:
    """Return the case with three slices averaged to one."""
    n = case.shape[2] // 3
    volumes = {
        name: each[:, :, : 3 * n].reshape(*each.shape[:2], n, 3).mean(axis=3)
        for name, each in case.volumes.items()
    }
    affine = case.affine.copy()
    affine[:3, 2] *= 3
    affine[:3, 3] += case.affine[:3, 2]
    return replace(case, volumes=volumes, affine=affine, truth=None)


VARIANTS = {
    "with a cavity at the surface": cavity,
    "with four scraps of scalp": scraps,
    "with slices three times as thick": thick_slices,
}
"""Right cases that are hard; alarms on the scraps are right too."""
