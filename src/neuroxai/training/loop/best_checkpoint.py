"""Validation scores during training, the weights of the best one, and early stopping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from neuroxai.files.atomic import write_table

ValidationScore = Callable[[nn.Module], float]
"""Score of a network on the validation cases; higher is better."""

VALIDATION_LOG = "validation.csv"


@dataclass
class BestCheckpoint:
    """Weights with the highest validation score so far.

    Attributes
    ----------
    score
        Validation score of a network.
    every
        Number of steps between validations.
    patience
        Number of validations without improvement after which training stops; None disables early
        stopping.
    """

    score: ValidationScore
    every: int
    patience: int | None
    _scores: list[tuple[int, float]] = field(default_factory=list)
    _weights: dict[str, Tensor] = field(default_factory=dict)

    def update(self, step: int, network: nn.Module) -> float:
        """Validate the network after ``step`` steps; keep its weights if the score is the best."""
        value = self.score(network)
        if not self._scores or value > max(score for _, score in self._scores):
            self._weights = {
                name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()
            }
        self._scores.append((step, value))
        return value

    @property
    def should_stop(self) -> bool:
        """Whether the last ``patience`` validations brought no improvement."""
        if self.patience is None or not self._scores:
            return False
        values = [value for _, value in self._scores]
        return len(values) - 1 - values.index(max(values)) >= self.patience

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and score of the best validation; None before the first one."""
        return max(self._scores, key=lambda seen: (seen[1], -seen[0]), default=None)

    def restore(self, network: nn.Module) -> None:
        """Load the best weights into the network, if it was validated at all."""
        if self._weights:
            network.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """State for resuming."""
        return {"scores": [list(score) for score in self._scores], "weights": self._weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from the result of :meth:`state_dict`."""
        self._scores = [(int(step), float(value)) for step, value in state["scores"]]
        self._weights = dict(state["weights"])

    def write(self, folder: Path) -> None:
        """Write all validation scores to ``validation.csv``."""
        rows = ((step, f"{value:.5f}") for step, value in self._scores)
        write_table(folder / VALIDATION_LOG, ("step", "score"), rows)
