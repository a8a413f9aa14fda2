"""A training that is watched on validation cases: the best weights are kept, and no time wasted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from neuroxai.files.folder import write_table

Score = Callable[[nn.Module], float]
"""How good a network is on the validation cases; more is better."""

WATCHED = "validation.csv"


@dataclass
class Watch:
    """What was seen of a training so far.

    Attributes
    ----------
    score
        Measures the network.
    every
        Steps between two looks.
    patience
        Looks without a better score after which the training ends; None for never.
    """

    score: Score
    every: int
    patience: int | None
    _seen: list[tuple[int, float]] = field(default_factory=list)
    _best: dict[str, Tensor] = field(default_factory=dict)

    def look(self, step: int, network: nn.Module) -> float:
        """Measure the network after ``step`` steps, and keep its weights if none were better."""
        value = self.score(network)
        if not self._seen or value > max(score for _, score in self._seen):
            self._best = {
                name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()
            }
        self._seen.append((step, value))
        return value

    @property
    def over(self) -> bool:
        """Whether patience is at its end."""
        if self.patience is None or not self._seen:
            return False
        values = [value for _, value in self._seen]
        return len(values) - 1 - values.index(max(values)) >= self.patience

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and score of the best look."""
        return max(self._seen, key=lambda seen: (seen[1], -seen[0]), default=None)

    def restore(self, network: nn.Module) -> None:
        """Give the network the best weights, if there was a look at all."""
        if self._best:
            network.load_state_dict(self._best)

    def state(self) -> dict[str, Any]:
        """Return what a run that is taken up again needs to know."""
        return {"seen": [list(seen) for seen in self._seen], "best": self._best}

    def take_up(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self._seen = [(int(step), float(value)) for step, value in state["seen"]]
        self._best = dict(state["best"])

    def write(self, folder: Path) -> None:
        """Write every look to ``validation.csv``."""
        rows = ((step, f"{value:.5f}") for step, value in self._seen)
        write_table(folder / WATCHED, ("step", "score"), rows)
