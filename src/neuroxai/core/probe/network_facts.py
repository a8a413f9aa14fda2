"""What passes found out about a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from neuroxai.core.engine.cell_positions import CellPositions


@dataclass
class NetworkFacts:
    """What passes found out about a network.

    Attributes
    ----------
    copied
        Labels of layers whose output is overwritten in place, of which a copy is recorded.
    samples_are_independent
        Whether samples of a batch do not influence each other; None if it was not tested.
    keeps_state
        Whether passes leave something in the network, such as a cache of the first image's size.
    second_output
        The output of a second pass at the explained point if it differs; else None.
    is_compared
        Whether it is known if a second pass gives the same output.
    positions
        Label of a layer and size of the image to the positions of its cells, None if they cover
        all of it.
    """

    copied: frozenset[str] = frozenset()
    samples_are_independent: bool | None = None
    keeps_state: bool = False
    second_output: Tensor | None = None
    is_compared: bool = False
    positions: dict[tuple[str, tuple[int, ...]], CellPositions | None] = field(default_factory=dict)


@dataclass(frozen=True)
class SecondPass:
    """A second pass at the explained point whose output differs from that of the first.

    Attributes
    ----------
    score
        The target's value per sample in the second pass.
    output_change
        Largest change of the output, relative to its largest value.
    """

    score: tuple[float, ...]
    output_change: float

    def note(self, score: Sequence[float]) -> str:
        """Return the difference from the first pass's target values as a sentence."""
        pairs = zip(score, self.score, strict=True)
        first, second = max(pairs, key=lambda pair: abs(pair[0] - pair[1]))
        return (
            "the network answers differently each time, because it draws random numbers (dropout, "
            f"sampling) or keeps state: a second pass changed the target from {first:.4g} to "
            f"{second:.4g} and the output by up to {self.output_change:.2g} of its largest value, "
            "so the map is that of single draws, and any completeness gap includes this difference"
        )
