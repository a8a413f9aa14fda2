"""How good a trained network is on cases it never saw."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroxai.accuracy.segmentation import dice_of_counts
from neuroxai.data.case import CLASSES
from neuroxai.data.postprocessing import relabel_small_enhancement
from neuroxai.models.model import Model
from neuroxai.training.config.config import Config
from neuroxai.training.data.cases import Prepared


@dataclass(frozen=True)
class DiceScores:
    """Dice per case and region.

    Attributes
    ----------
    rows
        Case name (and spacing in mm) to region name to Dice.
    """

    rows: tuple[tuple[str, float, Mapping[str, float]], ...]

    @property
    def count(self) -> int:
        """Number of cases."""
        return len(self.rows)

    def mean(self, *, spacing: float | None = None) -> dict[str, float]:
        """Return the mean over cases for each region, on request at one spacing only."""
        chosen = [dice for _, mm, dice in self.rows if spacing is None or mm == spacing]
        if not chosen:
            return {}
        return {region: float(np.mean([dice[region] for dice in chosen])) for region in chosen[0]}


def evaluate_prepared(
    model: Model, cases: Sequence[Prepared], *, device: torch.device | str = "cpu"
) -> Iterator[tuple[str, float, dict[str, float]]]:
    """Yield name, spacing and Dice of each prepared volume, equal to that on the patient's grid.

    Preparing moves, cuts and pads voxels: the truth that was cut off is counted, what is answered
    in the padding is not; where it makes new ones, the outputs are brought back to the old first.
    """
    network = on_device(device, model.network)
    for case in cases:
        least = model.card.smallest_enhancement_mm3
        scores = _dice_of(network, case, model.card.classes, model.card.regions, device, least)
        yield case.name, case.spacing, scores


def mean_dice(
    network: nn.Module, cases: Sequence[Prepared], config: Config, device: torch.device
) -> float:
    """Return the Dice of a segmenter, its mean over regions and prepared cases."""
    network = on_device(device, network)
    least = config.smallest_enhancement_mm3
    scores = [
        list(_dice_of(network, case, config.classes, config.regions, device, least).values())
        for case in cases
    ]
    return float(np.mean(scores))


def mean_recall(
    network: nn.Module, cases: Sequence[Prepared], config: Config, device: torch.device
) -> float:
    """Return the share of slices a classifier has right, its mean over the classes there are."""
    network = on_device(device, network)
    right: dict[int, list[bool]] = {}
    for case in cases:
        for found in _classes_of(network, case, device):
            right.setdefault(case.grade, []).append(found == case.grade)
    return float(np.mean([np.mean(each) for each in right.values()])) if right else 0.0


def _dice_of(
    network: nn.Module,
    case: Prepared,
    classes: Sequence[str],
    regions: Mapping[str, Sequence[str]],
    device: torch.device | str,
    least_mm3: float,
) -> dict[str, float]:
    channels = logits_of(network, case, device).argmax(dim=0).cpu().numpy()
    return dice_of_labels(channels, truth_of(case), case, classes, regions, least_mm3)


def dice_of_labels(
    channels: NDArray[np.int64],
    truth: NDArray[np.uint8],
    case: Prepared,
    classes: Sequence[str],
    regions: Mapping[str, Sequence[str]],
    least_mm3: float,
) -> dict[str, float]:
    """Return the regions' Dice of the channels that were answered in some of a case's voxels.

    Everywhere else the answer is background; the truth there is counted all the same.
    """
    labels = _class_indices(classes)[channels]
    labels, _ = relabel_small_enhancement(labels, case.voxel_mm3, least_mm3)
    scores = {}
    for region, names in regions.items():
        members = _members(names)
        found, real = np.isin(labels, members), np.isin(truth, members)
        total = sum(case.counts[index] for index in members)
        scores[region] = dice_of_counts(int((found & real).sum()), int(found.sum()), total)
    return scores


def evaluate_slices(
    model: Model, cases: Sequence[Prepared], *, device: torch.device | str = "cpu"
) -> Iterator[tuple[str, int, list[int]]]:
    """Yield name, true class and the predicted class of each slice, the largest slice first."""
    network = on_device(device, model.network)
    for case in cases:
        if not len(case.truth):
            continue
        yield case.name, case.grade, _classes_of(network, case, device)


def _classes_of(network: nn.Module, case: Prepared, device: torch.device | str) -> list[int]:
    """Return the likeliest class of each slice."""
    with torch.no_grad():
        x = torch.from_numpy(np.array(case.images, dtype=np.float32)).to(device)
        found: list[int] = network(x).argmax(dim=1).tolist()
    return found


def on_device(device: torch.device | str, network: nn.Module) -> nn.Module:
    """Return ``network``, or its copy on another device; the network itself stays where it is."""
    wanted = torch.device(device).type
    there = all(parameter.device.type == wanted for parameter in network.parameters())
    return network if there else copy.deepcopy(network).to(device)


def _class_indices(names: Sequence[str]) -> NDArray[np.uint8]:
    """Return, for each output channel, its index in ``CLASSES``."""
    return np.array([CLASSES.index(name) for name in names], dtype=np.uint8)


def _members(names: Iterable[str]) -> list[int]:
    return [CLASSES.index(name) for name in names]


def logits_of(network: nn.Module, case: Prepared, device: torch.device | str) -> Tensor:
    """Return the logits of the patient's voxels that the network was shown."""
    image, _ = case.whole()
    with torch.no_grad():
        logits: Tensor = network(torch.from_numpy(image)[None].to(device))[0]
    if case.before is None:
        return logits[(slice(None), *_patients_own(case))]
    return torch.from_numpy(case.before.way.to_shape(logits.cpu().numpy()))


def truth_of(case: Prepared) -> NDArray[np.uint8]:
    """Return the truth of the same voxels."""
    if case.before is None:
        return case.whole()[1][_patients_own(case)]
    return case.before.truth


def _patients_own(case: Prepared) -> tuple[slice, ...]:
    """Return the part of the network's grid that is not padding."""
    if case.inside is None:
        return tuple(slice(0, size) for size in case.shape)
    return tuple(slice(low, high) for low, high in case.inside)
