"""Length of a training and its learning rate schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass

from neuroxai.training.config.config import Config


@dataclass(frozen=True)
class Budget:
    """Limit of a training in steps, in seconds, or both; the first one reached ends it."""

    steps: int | None
    seconds: float | None

    def progress(self, steps: int, seconds: float) -> float:
        """Fraction of the budget used, from 0 to 1."""
        fractions = [0.0]
        if self.steps is not None:
            fractions.append(steps / self.steps)
        if self.seconds is not None:
            fractions.append(seconds / self.seconds)
        return min(1.0, max(fractions))


def learning_rate(progress: float, config: Config) -> float:
    """Learning rate after the fraction ``progress`` of the budget.

    Linear warmup over the fraction ``config.warmup``, then the schedule: ``cosine`` to zero,
    ``poly`` as ``(1 − t)^0.9``, ``plateau`` with a linear decay over the last 30 %, or
    ``constant``. ``progress`` counts steps or time, whichever is further, so that a training
    limited by time reaches the end of its schedule as well.
    """
    if progress < config.warmup:
        return config.learning_rate * max(progress / config.warmup, 1e-3)
    t = (progress - config.warmup) / max(1 - config.warmup, 1e-9)
    if config.schedule == "cosine":
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * t))
    if config.schedule == "poly":
        return float(config.learning_rate * (1 - t) ** 0.9)
    if config.schedule == "plateau":
        return config.learning_rate * min(1.0, (1 - t) / 0.3)
    return config.learning_rate
