"""How long a run is, and how fast it learns on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass

from neuroxai.training.config.config import Config


@dataclass(frozen=True)
class Budget:
    """How long a run is: so many steps, so many seconds, or whichever comes first."""

    steps: int | None
    seconds: float | None

    def spent(self, steps: int, seconds: float) -> float:
        """Return the fraction of the run that is over, 1 at its end."""
        parts = [0.0]
        if self.steps is not None:
            parts.append(steps / self.steps)
        if self.seconds is not None:
            parts.append(seconds / self.seconds)
        return min(1.0, max(parts))


def learning_rate(spent: float, config: Config) -> float:
    """Return the learning rate when the fraction ``spent`` of the run is over.

    It rises over the fraction ``warmup`` of the run and then falls to zero by the schedule:
    ``cosine``, ``poly`` ``(1 − t)^0.9``, ``plateau`` (in a line, over the last 30 %), or
    ``constant``, not at all. The fraction counts steps or time, whichever is further, so that a
    run limited by time ends at zero as well.
    """
    if spent < config.warmup:
        return config.learning_rate * max(spent / config.warmup, 1e-3)
    t = (spent - config.warmup) / max(1 - config.warmup, 1e-9)
    if config.schedule == "cosine":
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * t))
    if config.schedule == "poly":
        return float(config.learning_rate * (1 - t) ** 0.9)
    if config.schedule == "plateau":
        return config.learning_rate * min(1.0, (1 - t) / 0.3)
    return config.learning_rate
