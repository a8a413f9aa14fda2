"""A target that is any function of the model output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuroxai.core.errors import TargetError
from neuroxai.core.target.bound_target import BoundTarget
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.restriction import Image, Prediction, Restriction
from neuroxai.core.target.scale import OutputScale
from neuroxai.core.target.target import Target
from neuroxai.core.vocabulary import place_in_words


@dataclass(frozen=True)
class Score(Target):
    """Any differentiable function of the output.

    Parameters
    ----------
    function
        Takes the output ``(B, K)`` or ``(B, K, *S)`` and returns one number per sample, ``(B,)``,
        each of which depends on its own sample alone.
    label
        The target's name; by default that of the function.
    scale
        Whether the function takes the output as it is, or probabilities.

    Examples
    --------
    >>> output = torch.tensor([[3.0, 1.0], [0.0, 5.0]])
    >>> Score(lambda output: output[:, 0] - output[:, 1]).bind(Outputs(), output).score(output)
    tensor([ 2., -5.])
    """

    function: Callable[[Tensor], Tensor]
    label: str | None = None
    scale: OutputScale = "logit"
    within: Restriction | None = None

    @property
    def name(self) -> str:
        """The label, or the function's name."""
        name: str = getattr(self.function, "__name__", type(self.function).__name__)
        return self.label or name.strip("<>")

    def channels(self, outputs: Outputs, output: Tensor) -> Tensor:
        """Return no channel: the function takes the whole output."""
        return torch.zeros(len(output), 0, dtype=torch.long, device=output.device)

    def needs_output(self, outputs: Outputs) -> bool:
        """Return True: the function is first called with an output."""
        return True

    def bind(self, outputs: Outputs, output: Tensor) -> BoundTarget:
        """Return the target; the function is called with the output at the explained point."""
        by_default = isinstance(self.within, Prediction) and self.within.by_default
        if not (by_default or self.within is None or isinstance(self.within, Image)):
            raise TargetError(
                f"target {self.name} is a function of the whole output, which cannot be restricted "
                f"to {place_in_words(self.within.name)}: leave out within= and select the place in "
                "the function"
            )
        if self.scale == "probability":
            outputs.probabilities(output[:1])  # raises if the activation is unknown
        description: dict[str, Any] = {
            "name": self.name, "kind": "score", "channels": [[] for _ in output],
            "classes": [[] for _ in output], "negated": [False] * len(output),
            "scale": "function", "of": self.scale, "within": None, "within_by_default": False,
        }  # fmt: skip
        bound = BoundTarget(
            outputs, self.channels(outputs, output), self.scale, None, description,
            function=self.function,
        )  # fmt: skip
        bound.score(output)  # raises if the function does not fit to the output
        return bound
