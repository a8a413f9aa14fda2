"""A case made ready for a model: network input, output names, and the model's identity."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.explanation import network_hash
from neuroxai.core.probe.ensemble import Mirrored
from neuroxai.core.target.outputs import Outputs
from neuroxai.data.case import Case
from neuroxai.data.preparation import Prepared
from neuroxai.data.preprocessing import Preprocessing
from neuroxai.models.command import CommandNetwork
from neuroxai.models.model import Model
from neuroxai.models.nnunet import MIRRORING_OFF


def outputs_of(model: Model) -> Outputs:
    """Return the names and the activation of a model's output channels, from its card."""
    card = model.card
    activation: Literal["softmax", "sigmoid"] = (
        "sigmoid" if card.activation == "sigmoid" else "softmax"
    )
    return Outputs(
        card.classes, card.regions, activation, key=model.output_key,
        activated=isinstance(model.network, CommandNetwork),  # a program writes probabilities
        smallest_enhancement_mm3=card.smallest_enhancement_mm3,
        label_numbers=card.postprocessing.label_numbers,
    )  # fmt: skip


def mirrored(model: Model) -> Model:
    """Return a model whose prediction is the mean over the case and all its mirror images.

    Examples
    --------
    >>> from neuroxai.models.loading import load_model
    >>> type(mirrored(load_model("deepseg-phantom")).network).__name__
    'Mirrored'
    """
    network = Mirrored(model.network, outputs_of(model)).eval()
    notes = tuple(note for note in model.notes if not note.startswith(MIRRORING_OFF))
    return dataclasses.replace(model, network=network, output_key=None, notes=notes)


def describe_model(model: Model) -> dict[str, str]:
    """Return a model's name, and the hashes of its weight file and of its network's state."""
    return {
        "name": model.card.name,
        "architecture": model.card.architecture,
        "weights_sha256": model.weights_sha256,
        "state_sha256": network_hash(model.network),
    }


def prepare(
    model: Model,
    case: Case,
    slice_index: int | None = None,
    *,
    tumor: NDArray[np.bool_] | None = None,
    whole: bool = False,
) -> Prepared:
    """Return the network input of a case.

    Parameters
    ----------
    model
        A loaded model.
    case
        The study.
    slice_index
        The axial slice for a 2D network, counted from the feet. By default the slice with the
        largest ``tumor``, or the largest tumor in the truth.
    tumor
        ``(I, J, K)`` bool on the case's grid, a predicted tumor.
    whole
        Prepare for a pass over the whole image at once, even if the model is made for windows. The
        image is then padded to what the network can divide, with a warning.

    Raises
    ------
    CaseError
        If the case does not suit the model, or no slice can be chosen.
    """
    recipe = Preprocessing.from_dict(model.card.preprocessing)
    if model.windows is not None and not whole:
        recipe = recipe.replace(divisor=model.windows.divisor)
    prepared = recipe.prepare(case, slice_index, mask=tumor)
    if isinstance(model.network, CommandNetwork):
        model.network.affine = prepared.placement.network_affine
    if model.windows is None or not whole:
        return prepared
    size = "×".join(map(str, model.windows.size))
    return _with_warning(
        prepared,
        f"{case.name}: the network runs on the whole image at once, although its predictions are "
        f"blended from windows of {size} voxels",
    )


def prepare_slice(
    model: Model, case: Case, tumor: NDArray[np.bool_] | None, predicted_by: str
) -> Prepared:
    """Return the network input of a slice that was chosen by a predicted tumor, with a warning."""
    return _with_warning(
        prepare(model, case, tumor=tumor),
        f"{case.name}: the slice was chosen by the tumor that {predicted_by} predicts",
    )


def needs_predicted_slice(model: Model, case: Case) -> bool:
    """Whether the slice for a 2D network has to be chosen by a predicted tumor."""
    plane = Preprocessing.from_dict(model.card.preprocessing).plane
    return plane is not None and case.truth is None and case.laterality_known


def _with_warning(prepared: Prepared, warning: str) -> Prepared:
    return dataclasses.replace(prepared, warnings=(*prepared.warnings, warning))
