"""A loaded network with its model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from neuroxai.core.probe.windows import Windows
from neuroxai.models.card import Card


@dataclass(frozen=True, eq=False)
class Model:
    """A network and its model card, independent of the file format.

    Attributes
    ----------
    network
        The network in evaluation mode, on the CPU, in float32. It returns logits.
    card
        Its inputs, outputs, preprocessing and training.
    folder
        Folder it was loaded from.
    weights_sha256
        SHA-256 of the weight file, recorded in the provenance of every map.
    kind
        Format it was loaded from, for display.
    output_key
        Index or key of the output to use, if the network returns a list, tuple or dict.
    windows
        Sliding windows for inference; None for a single pass over the whole image.
    notes
        Differences from the original inference pipeline, one sentence each.
    """

    network: nn.Module
    card: Card
    folder: Path
    weights_sha256: str
    kind: str = "a checkpoint"
    output_key: int | str | None = None
    windows: Windows | None = None
    notes: tuple[str, ...] = ()
