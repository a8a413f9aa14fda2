"""The network's answer to a case, in one call."""

from __future__ import annotations

from neuroxai.data.case import Case
from neuroxai.models.model import Model
from neuroxai.patient.prediction import Prediction
from neuroxai.workflows.preparation import mirrored
from neuroxai.workflows.session import open


def predict(
    model: Model,
    case: Case,
    *,
    slice_index: int | None = None,
    device: str = "auto",
    memory: int | str | None = None,
    flips: bool = False,
) -> Prediction:
    """Return the network's answer to a case, on the patient's own grid.

    Short for :attr:`Session.prediction <neuroxai.workflows.session.Session.prediction>`; the
    parameters are those of :func:`~neuroxai.workflows.session.open`. With ``flips``, the prediction
    is the mean over the case and all its mirror images.

    Raises
    ------
    NeuroXAIError
        If a parameter does not suit the model or the case.

    Examples
    --------
    >>> from neuroxai.data.phantom import make_phantom
    >>> from neuroxai.models.loading import load_model
    >>> prediction = predict(load_model("deepseg-phantom"), make_phantom(7, spacing=3.0).case)
    >>> list(prediction.volumes_ml())
    ['WT', 'TC', 'ET']
    """
    model = mirrored(model) if flips else model
    session = open(model, case, slice_index=slice_index, device=device, memory=memory)
    return session.prediction
