"""Whether a network fits what it is to learn, told before any case is made ready."""

from __future__ import annotations

import copy
from typing import get_args

import torch
from torch import nn

from neuroxai.core.errors import ModelError, TrainingError
from neuroxai.data.case import Grade
from neuroxai.training.config.config import Config


def check_recipe(config: Config) -> None:
    """Refuse a recipe that makes no sense, or that makes another kind of image than the task's.

    Raises
    ------
    ModelError
        If a value of ``preprocessing`` makes no sense.
    TrainingError
        If it makes slices for a segmenter or volumes for a classifier, or the classes are none
        that the data has.
    """
    plane = config.preprocessing.plane
    wanted, shown = (None, "null") if config.task == "segmentation" else ("axial", "'axial'")
    if plane != wanted:
        raise TrainingError(
            f"preprocessing.plane is {plane!r}, expected {shown}: task is {config.task}"
        )
    grades = get_args(Grade)
    graded = config.task == "classification" and config.data.pictures is None
    if graded and not set(config.classes) <= {*grades}:
        raise TrainingError(
            f"classes is {list(config.classes)}, expected LGG and HGG, the grades of scans"
        )


def check_network(network: nn.Module, config: Config) -> None:
    """Refuse a network that cannot be shown the batches, or whose answer is not the task's.

    A twin without numbers is asked: shapes alone are worked out, in no time and memory.

    Raises
    ------
    TrainingError
        Naming the argument, what it is and what is expected.
    """
    _check_channels("in_channels", config.arguments.get("in_channels"), config.modalities)
    twin = copy.deepcopy(network).to("meta").train(not config.frozen_norms)
    for size in _sizes(config):
        asked = (config.batch, len(config.modalities), *size)
        try:
            # Dropout must not move the random numbers that the training's own layers start from.
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                answer = tuple(twin(torch.empty(asked, device="meta")).shape)
        except (ModelError, RuntimeError, ValueError, TypeError) as error:
            raise TrainingError(
                f"architecture: {config.architecture} with arguments {dict(config.arguments)} "
                f"cannot be shown batches of shape {asked} ({str(error).partition(chr(10))[0]})"
            ) from error
        flat = config.task == "classification"
        if answer[2:] != (() if flat else size):
            expected = (
                "(B, K) of a classifier" if flat else f"(B, K, {str(size)[1:]} of a segmenter"
            )
            raise TrainingError(
                f"architecture: {config.architecture} with arguments {dict(config.arguments)} "
                f"answers with the shape {answer}, expected {expected}"
            )
        _check_channels("out_channels", answer[1], config.classes)


def _sizes(config: Config) -> list[tuple[int, ...]]:
    """Return the sizes of the images that the network will be shown."""
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
