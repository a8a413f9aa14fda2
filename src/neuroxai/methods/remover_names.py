"""Names of removers, which are checked before torch is imported."""

from __future__ import annotations

from neuroxai.core.errors import MethodError, suggestion
from neuroxai.methods.paths.baseline_names import BASELINES, named_axis

AUTO = "auto"
"""``healthy`` for images, and ``zero`` for inputs without space, such as clinical values."""

NEIGHBORS = "neighbors"

REMOVERS = (*BASELINES, NEIGHBORS)
"""See :class:`~neuroxai.methods.removers.Remover`."""


def check_remover(method: str, remover: str) -> None:
    """Raise if the name of a remover is unknown.

    Raises
    ------
    MethodError
        With the known names.

    Examples
    --------
    >>> check_remover("occlusion", "mirror:0")
    >>> check_remover("occlusion", "neighbours")
    Traceback (most recent call last):
    ...
    neuroxai.core.errors.MethodError: occlusion: unknown remover 'neighbours': did you mean \
'neighbors'?
    """
    known = (AUTO, *REMOVERS)
    if remover not in known and named_axis(remover) is None:
        raise MethodError(f"{method}: unknown remover {remover!r}: {suggestion(remover, known)}")
