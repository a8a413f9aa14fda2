"""Checks of a training configuration against its data and network, before cases are prepared."""

from __future__ import annotations

import copy
from typing import get_args

import torch
from torch import nn

from neuroxai.core.errors import ModelError, TrainingError
from neuroxai.data.case import Grade
from neuroxai.training.config.config import Config


def check_task(config: Config) -> None:
    """Raise if the preprocessing or the classes do not match the task.

    Raises
    ------
    TrainingError
        If the preprocessing yields slices for a segmenter or volumes for a classifier, or the
        classes of a classifier of scans are not tumor grades.
    """
    plane = config.preprocessing.plane
    expected, shown = (None, "null") if config.task == "segmentation" else ("axial", "'axial'")
    if plane != expected:
        raise TrainingError(
            f"preprocessing.plane is {plane!r}, expected {shown}, because task is {config.task}"
        )
    grades = get_args(Grade)
    graded = config.task == "classification" and config.data.pictures is None
    if graded and not set(config.classes) <= {*grades}:
        raise TrainingError(
            f"classes is {list(config.classes)}, expected LGG and HGG, the grades of scans"
        )


def check_network(network: nn.Module, config: Config) -> None:
    """Raise if the network does not accept the batches, or its output does not match the task.

    A copy of the network on the meta device computes the shapes, without memory and arithmetic.

    Raises
    ------
    TrainingError
        Naming the argument, its value and what was expected.
    """
    _check_channels("in_channels", config.arguments.get("in_channels"), config.modalities)
    meta_network = copy.deepcopy(network).to("meta").train(not config.frozen_norms)
    description = f"architecture: {config.architecture} with arguments {dict(config.arguments)}"
    for size in _sizes(config):
        shape = (config.batch, len(config.modalities), *size)
        try:
            # Dropout must not advance the random numbers that initialize the layers of the loss.
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                output = tuple(meta_network(torch.empty(shape, device="meta")).shape)
        except (ModelError, RuntimeError, ValueError, TypeError) as error:
            reason = str(error).partition("\n")[0]
            raise TrainingError(
                f"{description} cannot process batches of shape {shape} ({reason})"
            ) from error
        classifies = config.task == "classification"
        if output[2:] != (() if classifies else size):
            expected = (
                "(B, K) of a classifier" if classifies else f"(B, K, {str(size)[1:]} of a segmenter"
            )
            raise TrainingError(
                f"{description} has an output of shape {output}, expected {expected}"
            )
        _check_channels("out_channels", output[1], config.classes)


def _sizes(config: Config) -> list[tuple[int, ...]]:
    """Return the sizes of the training images."""
    if config.task == "segmentation":
        return [config.patch]
    whole = config.preprocessing.size or ()
    square = tuple(min(config.focus_size, edge) for edge in whole)
    return [whole, square] if config.focus_steps else [whole]


def _check_channels(key: str, count: object, names: tuple[str, ...]) -> None:
    if count is not None and count != len(names):
        raise TrainingError(
            f"arguments.{key} is {count!r}, expected {len(names)}, one for each of "
            f"{', '.join(names)}; set arguments.{key}={len(names)}"
        )
