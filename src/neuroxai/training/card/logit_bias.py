"""The levels of a segmenter's outputs against each other, set on validation cases in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from neuroxai.core.progress import Report
from neuroxai.training.card.evaluate import dice_of_labels, logits_of, on_device, truth_of
from neuroxai.training.config.config import Config
from neuroxai.training.data.cases import Prepared

LARGEST = 2.0
"""How far a class's logit may be shifted."""

STEPS = (0.5, 0.25, 0.125)


@dataclass(frozen=True, eq=False)
class _Doubtful:
    """The voxels of a case that some allowed shift calls tumor: logits over the background's."""

    case: Prepared
    logits: NDArray[np.float32]
    truth: NDArray[np.uint8]


def choose_shift(
    network: nn.Module,
    cases: Sequence[Prepared],
    config: Config,
    device: torch.device,
    report: Report,
) -> tuple[float, ...]:
    """Return what to add to each class's logit for the best Dice, 0 for the background.

    The cross-entropy's class weights, which keep rare classes from being lost, leave some classes
    too likely in the end. The mean of regions and cases is climbed one class at a time, with steps
    that become finer; the network is asked once for each case.
    """
    network, doubtful = on_device(device, network), []
    for number, case in enumerate(cases):
        report("Setting the outputs' levels", number, len(cases))
        doubtful.append(_doubtful(network, case, device))
    report("Setting the outputs' levels", len(cases), len(cases))
    shift = np.zeros(len(config.classes), np.float32)
    best = _mean_dice(doubtful, shift, config)
    for step in STEPS:
        moved = True
        while moved:
            moved = False
            for channel in range(1, len(shift)):
                for way in (step, -step):
                    tried = shift.copy()
                    tried[channel] += way
                    if abs(tried[channel]) > LARGEST:
                        continue
                    value = _mean_dice(doubtful, tried, config)
                    if value > best:
                        shift, best, moved = tried, value, True
    return tuple(float(each) for each in shift)


def shift_outputs(network: nn.Module, shift: Sequence[float]) -> None:
    """Add to the biases of a network's last convolution, ``output``."""
    bias = network.get_submodule("output").get_parameter("bias")
    with torch.no_grad():
        bias.add_(torch.tensor(shift).to(bias))


def _doubtful(network: nn.Module, case: Prepared, device: torch.device) -> _Doubtful:
    logits, truth = logits_of(network, case, device).float().cpu().numpy(), truth_of(case)
    above = logits[1:] - logits[:1]
    near = above.max(axis=0) > -LARGEST
    return _Doubtful(case, above[:, near], truth[near])


def _mean_dice(doubtful: Sequence[_Doubtful], shift: NDArray[np.float32], config: Config) -> float:
    found: list[float] = []
    for each in doubtful:
        above = each.logits + shift[1:, None]
        channels = np.where(above.max(axis=0, initial=0) > 0, above.argmax(axis=0) + 1, 0)
        scores = dice_of_labels(
            channels, each.truth, each.case, config.classes, config.regions,
            config.smallest_enhancement_mm3,
        )  # fmt: skip
        found += scores.values()
    return float(np.mean(found))
