"""One door for every kind of model a user may have."""

from __future__ import annotations

import os
import re
from pathlib import Path

from neuroxai.core.errors import ModelError, suggestion
from neuroxai.models.checkpoint import (
    CARD,
    WEIGHTS,
    read_checkpoint,
    shipped_folder,
    shipped_models,
)
from neuroxai.models.exported import SUFFIX as EXPORTED
from neuroxai.models.exported import read_exported
from neuroxai.models.factory import read_factory
from neuroxai.models.model import Model
from neuroxai.models.monai_bundle import METADATA, read_bundle
from neuroxai.models.nnunet import DATASET, read_nnunet
from neuroxai.models.nnunet_plans import PLANS
from neuroxai.models.weights import refuse_code

DEFAULT_MODEL = "deepseg-phantom"

_ARCHIVE = re.compile(r"\.(zip|tar|tgz|7z|(tar\.)?(gz|bz2|xz|zst))$")
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def load_model(
    name_or_path: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    weights: str | os.PathLike[str] | None = None,
    card: str | os.PathLike[str] | None = None,
    trust: bool = False,
) -> Model:
    """Load a network, whatever it comes as.

    Nothing that a file says is executed unless ``trust`` is given.

    Parameters
    ----------
    name_or_path
        A shipped network's name, a checkpoint folder, the folder of a MONAI bundle or of a trained
        nnU-Net, a ``.pt2`` file of ``torch.export``, or ``package.module:factory``, something
        importable that returns an ``nn.Module``.
    weights, card
        For a factory: the safetensors file; and, as for an exported program, a JSON file with what
        the network expects and returns; see :func:`~neuroxai.models.factory.read_factory`.
    trust
        Evaluate the expressions in a bundle's configuration or an exported program; read nnU-Net's
        pickled checkpoints, in a process with limits.

    Raises
    ------
    ModelError
        Naming the file and what is wrong with it.

    Examples
    --------
    >>> load_model("deepseg-phantom").card.modalities
    ('T1', 'T1ce', 'T2', 'FLAIR')
    """
    text = os.fspath(name_or_path)
    if _FACTORY.fullmatch(text):
        return read_factory(text, weights, card)
    path = Path(text)
    if weights is None and path.suffix == EXPORTED:
        return read_exported(path, None if card is None else Path(card), trust=trust)
    if weights is not None or card is not None:
        raise ModelError(
            f"{text}: brings its own weights and card; give others only for package.module:factory"
        )
    shipped = shipped_models()
    if text in shipped:
        return read_checkpoint(shipped_folder(text))
    refuse_code(path)
    if path.is_file() and path.name in (WEIGHTS, CARD):
        path = path.parent
    if path.is_file() and _ARCHIVE.search(path.name.lower()):
        raise ModelError(f"{path}: archives are not unpacked; unpack it, and name the folder")
    if path.is_file():
        raise ModelError(f"{path}: is a file, expected a folder with {WEIGHTS} and {CARD}")
    if (path / METADATA).is_file():
        return read_bundle(path, trust=trust)
    if (path / PLANS).is_file() and (path / DATASET).is_file():
        return read_nnunet(path, trust=trust)
    if path.is_dir():
        return read_checkpoint(path)
    hint = suggestion(text, shipped) if shipped else "this installation ships no network"
    raise ModelError(
        f"{text}: neither a shipped network, nor a checkpoint folder ({WEIGHTS} and {CARD}), nor a "
        f"MONAI bundle ({METADATA}), nor an nnU-Net folder ({PLANS}), nor package.module:factory; "
        f"{hint}"
    )
