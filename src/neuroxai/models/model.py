"""A network ready to be explained, whatever it was read from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from neuroxai.core.probe.windows import Windows
from neuroxai.models.card import Card


@dataclass(frozen=True, eq=False)
class Model:
    """A network ready to be used and explained, and its card.

    Attributes
    ----------
    network
        In evaluation state, on the CPU, in float32; it returns logits.
    card
        What it expects and returns.
    folder
        Where it was loaded from.
    weights_sha256
        Hash of the weight file, for the provenance of every map.
    kind
        What it was read as.
    output_key
        Which of several outputs counts: an index for a list or tuple, a key for a dict.
    windows
        How its answer is put together where it looks through windows; None for all at once.
    notes
        What differs from how its makers run it, a sentence each.
    """

    network: nn.Module
    card: Card
    folder: Path
    weights_sha256: str
    kind: str = "a checkpoint"
    output_key: int | str | None = None
    windows: Windows | None = None
    notes: tuple[str, ...] = ()
