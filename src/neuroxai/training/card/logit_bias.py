"""Logit bias: a constant per class, fitted on validation cases after the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from neuroxai.core.progress import Report
from neuroxai.training.card.evaluate import (
    dice_of_channels,
    on_device,
    predict_logits,
    visible_truth,
)
from neuroxai.training.config.config import Config
from neuroxai.training.data.cases import PreparedCase

LARGEST = 2.0
"""Limit of the bias of a class. Only voxels whose prediction it can change are held; the largest
bias of the shipped network is 1.5 (decision 25)."""

STEPS = (0.5, 0.25, 0.125)
"""Steps of the search, from coarse to fine (decision 25)."""


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Voxels of a case that some bias within the limit predicts as tumor.

    Attributes
    ----------
    case
        The case.
    logits
        ``(K − 1, N)``, logits of the tumor classes minus that of the background.
    truth
        ``(N,)``.
    """

    case: PreparedCase
    logits: NDArray[np.float32]
    truth: NDArray[np.uint8]


def fit_logit_bias(
    network: nn.Module,
    cases: Sequence[PreparedCase],
    config: Config,
    device: torch.device,
    report: Report,
) -> tuple[float, ...]:
    """Fit the bias of each class's logit to the mean Dice over regions and cases.

    Class weights in the cross-entropy keep rare classes from being lost, but can leave them
    overpredicted. Coordinate ascent, one class at a time with decreasing steps; the background's
    bias is 0. The network predicts every case once.
    """
    network, candidates = on_device(device, network), []
    for number, case in enumerate(cases):
        report("Fitting the logit bias", number, len(cases))
        candidates.append(_candidates(network, case, device))
    report("Fitting the logit bias", len(cases), len(cases))
    bias = np.zeros(len(config.classes), np.float32)
    best = _mean_dice(candidates, bias, config)
    for step in STEPS:
        improved = True
        while improved:
            improved = False
            for channel in range(1, len(bias)):
                for change in (step, -step):
                    trial = bias.copy()
                    trial[channel] += change
                    if abs(trial[channel]) > LARGEST:
                        continue
                    value = _mean_dice(candidates, trial, config)
                    if value > best:
                        bias, best, improved = trial, value, True
    return tuple(float(each) for each in bias)


def add_logit_bias(network: nn.Module, bias: Sequence[float]) -> None:
    """Add a constant per class to the bias of the last convolution, ``output``."""
    parameter = network.get_submodule("output").get_parameter("bias")
    with torch.no_grad():
        parameter.add_(torch.tensor(bias).to(parameter))


def _candidates(network: nn.Module, case: PreparedCase, device: torch.device) -> _Candidates:
    logits = predict_logits(network, case, device).float().cpu().numpy()
    above_background = logits[1:] - logits[:1]
    near = above_background.max(axis=0) > -LARGEST
    return _Candidates(case, above_background[:, near], visible_truth(case)[near])


def _mean_dice(
    candidates: Sequence[_Candidates], bias: NDArray[np.float32], config: Config
) -> float:
    found: list[float] = []
    for each in candidates:
        logits = each.logits + bias[1:, None]
        channels = np.where(logits.max(axis=0, initial=0) > 0, logits.argmax(axis=0) + 1, 0)
        scores = dice_of_channels(
            channels, each.truth, each.case, config.classes, config.regions,
            config.smallest_enhancement_mm3,
        )  # fmt: skip
        found += scores.values()
    return float(np.mean(found))
