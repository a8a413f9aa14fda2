"""Evaluation of a network on prepared cases."""

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
from neuroxai.training.data.cases import PreparedCase


@dataclass(frozen=True)
class DiceScores:
    """Dice of each case and region.

    Attributes
    ----------
    rows
        Case name, spacing in mm, and region name to Dice.
    """

    rows: tuple[tuple[str, float, Mapping[str, float]], ...]

    @property
    def count(self) -> int:
        """Number of cases."""
        return len(self.rows)

    def mean(self, *, spacing: float | None = None) -> dict[str, float]:
        """Mean Dice of each region over all cases, or over those of one spacing."""
        chosen = [dice for _, mm, dice in self.rows if spacing is None or mm == spacing]
        if not chosen:
            return {}
        return {region: float(np.mean([dice[region] for dice in chosen])) for region in chosen[0]}


def evaluate_volumes(
    model: Model, cases: Sequence[PreparedCase], *, device: torch.device | str = "cpu"
) -> Iterator[tuple[str, float, dict[str, float]]]:
    """Evaluate a segmenter; yields name, spacing and Dice of each region for every case.

    Dice equals that on the patient's grid: truth removed by cropping counts as missed, predictions
    in the padding are ignored, and logits of resampled cases are resampled to the patient's grid.
    """
    network = on_device(device, model.network)
    for case in cases:
        least = model.card.smallest_enhancement_mm3
        scores = _dice(network, case, model.card.classes, model.card.regions, device, least)
        yield case.name, case.spacing, scores


def mean_dice(
    network: nn.Module, cases: Sequence[PreparedCase], config: Config, device: torch.device
) -> float:
    """Mean Dice of a segmenter over regions and cases."""
    network = on_device(device, network)
    least = config.smallest_enhancement_mm3
    scores = [
        list(_dice(network, case, config.classes, config.regions, device, least).values())
        for case in cases
    ]
    return float(np.mean(scores))


def mean_recall(
    network: nn.Module, cases: Sequence[PreparedCase], config: Config, device: torch.device
) -> float:
    """Balanced accuracy of a classifier: mean recall over the classes that occur, per slice."""
    network = on_device(device, network)
    correct: dict[int, list[bool]] = {}
    for case in cases:
        for predicted in _predict_classes(network, case, device):
            correct.setdefault(case.grade, []).append(predicted == case.grade)
    return float(np.mean([np.mean(each) for each in correct.values()])) if correct else 0.0


def _dice(
    network: nn.Module,
    case: PreparedCase,
    classes: Sequence[str],
    regions: Mapping[str, Sequence[str]],
    device: torch.device | str,
    least_mm3: float,
) -> dict[str, float]:
    channels = predict_logits(network, case, device).argmax(dim=0).cpu().numpy()
    return dice_of_channels(channels, visible_truth(case), case, classes, regions, least_mm3)


def dice_of_channels(
    channels: NDArray[np.int64],
    truth: NDArray[np.uint8],
    case: PreparedCase,
    classes: Sequence[str],
    regions: Mapping[str, Sequence[str]],
    least_mm3: float,
) -> dict[str, float]:
    """Dice of each region from predicted channels in a subset of a case's voxels.

    All other voxels are predicted as background; their truth counts as missed.
    """
    labels = _class_indices(classes)[channels]
    labels, _ = relabel_small_enhancement(labels, case.voxel_mm3, least_mm3)
    scores = {}
    for region, names in regions.items():
        members = _members(names)
        predicted, real = np.isin(labels, members), np.isin(truth, members)
        total = sum(case.counts[index] for index in members)
        intersection = int((predicted & real).sum())
        scores[region] = dice_of_counts(intersection, int(predicted.sum()), total)
    return scores


def evaluate_slices(
    model: Model, cases: Sequence[PreparedCase], *, device: torch.device | str = "cpu"
) -> Iterator[tuple[str, int, list[int]]]:
    """Evaluate a classifier; yields name, true class and predicted classes of the slices.

    The slice with the largest tumor area comes first.
    """
    network = on_device(device, model.network)
    for case in cases:
        if not len(case.truth):
            continue
        yield case.name, case.grade, _predict_classes(network, case, device)


def _predict_classes(
    network: nn.Module, case: PreparedCase, device: torch.device | str
) -> list[int]:
    """Predicted class of each slice."""
    with torch.no_grad():
        x = torch.from_numpy(np.array(case.images, dtype=np.float32)).to(device)
        predicted: list[int] = network(x).argmax(dim=1).tolist()
    return predicted


def on_device(device: torch.device | str, network: nn.Module) -> nn.Module:
    """Return ``network``, or a copy of it on ``device`` if it is on another one."""
    kind = torch.device(device).type
    there = all(parameter.device.type == kind for parameter in network.parameters())
    return network if there else copy.deepcopy(network).to(device)


def _class_indices(names: Sequence[str]) -> NDArray[np.uint8]:
    """Index in ``CLASSES`` of each output channel."""
    return np.array([CLASSES.index(name) for name in names], dtype=np.uint8)


def _members(names: Iterable[str]) -> list[int]:
    return [CLASSES.index(name) for name in names]


def predict_logits(network: nn.Module, case: PreparedCase, device: torch.device | str) -> Tensor:
    """Logits ``(K, *S)`` of a case, on the patient's grid, in the box that the network received."""
    image, _ = case.uncropped()
    with torch.no_grad():
        logits: Tensor = network(torch.from_numpy(image)[None].to(device))[0]
    if case.original is None:
        return logits[(slice(None), *_unpadded(case))]
    return torch.from_numpy(case.original.resampling.to_shape(logits.cpu().numpy()))


def visible_truth(case: PreparedCase) -> NDArray[np.uint8]:
    """Truth of the voxels of :func:`predict_logits`."""
    if case.original is None:
        return case.uncropped()[1][_unpadded(case)]
    return case.original.truth


def _unpadded(case: PreparedCase) -> tuple[slice, ...]:
    """Part of the network's grid that is not padding."""
    if case.unpadded is None:
        return tuple(slice(0, size) for size in case.shape)
    return tuple(slice(low, high) for low, high in case.unpadded)
