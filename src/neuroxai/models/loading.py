"""Loading of networks in any supported format."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from neuroxai.models.checkpoint import read_checkpoint
from neuroxai.models.command import read_command
from neuroxai.models.exported import read_exported
from neuroxai.models.factory import read_factory
from neuroxai.models.formats import DEFAULT_MODEL, Format, locate_model
from neuroxai.models.model import Model
from neuroxai.models.monai_bundle import read_bundle
from neuroxai.models.nnunet import read_nnunet


def load_model(
    name_or_path: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    weights: str | os.PathLike[str] | None = None,
    card: str | os.PathLike[str] | None = None,
    trust: bool = False,
    output: int | str | None = None,
) -> Model:
    """Load a network in any supported format.

    Code in a file is executed only with ``trust``.

    Parameters
    ----------
    name_or_path
        Name of a shipped network, checkpoint folder, folder of a MONAI bundle or of a trained
        nnU-Net, ``.pt2`` file of ``torch.export``, or ``package.module:factory``, an importable
        callable that returns an ``nn.Module``; or ``command:PROGRAM {case} {out}``, a program, see
        :class:`~neuroxai.models.command.CommandNetwork`.
    weights
        Safetensors file of a factory.
    card
        JSON file that describes a factory or an exported program; see
        :func:`~neuroxai.models.factory.read_factory`.
    trust
        Run a program, evaluate expressions in a bundle's configuration or an exported program, and
        read pickled nnU-Net checkpoints in a separate process with limits.
    output
        Index or key of the output to use, if the network returns a list, tuple or dict; by default
        that of the card, or the only one that fits to the classes.

    Raises
    ------
    ModelError
        Naming the file and the problem.

    Examples
    --------
    >>> load_model("deepseg-phantom").card.modalities
    ('T1', 'T1ce', 'T2', 'FLAIR')
    """
    model = _load(name_or_path, weights, card, trust=trust)
    return model if output is None else dataclasses.replace(model, output_key=output)


def _load(
    name_or_path: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None,
    card: str | os.PathLike[str] | None,
    *,
    trust: bool,
) -> Model:
    text = os.fspath(name_or_path)
    location = locate_model(text, weights=weights, card=card)
    if location.format is Format.COMMAND:
        return read_command(text, card, trust=trust)
    if location.format is Format.FACTORY:
        return read_factory(text, location.path, card)
    if location.format is Format.EXPORTED:
        return read_exported(location.path, None if card is None else Path(card), trust=trust)
    if location.format is Format.BUNDLE:
        return read_bundle(location.path, trust=trust)
    if location.format is Format.NNUNET:
        return read_nnunet(location.path, trust=trust)
    return read_checkpoint(location.path)
