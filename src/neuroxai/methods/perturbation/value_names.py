"""Names of value functions, which are checked before torch is imported."""

from __future__ import annotations

from neuroxai.core.errors import MethodError, suggestion

VALUES = ("target", "dice", "volume")
"""See :func:`~neuroxai.methods.perturbation.values.value_function`."""

UNITS = {"target": "change of the target", "dice": "change of soft Dice",
         "volume": "change of the volume in voxels"}  # fmt: skip


def check_value(method: str, value: str) -> None:
    """Raise if the name of a value function is unknown.

    Examples
    --------
    >>> check_value("occlusion", "dize")
    Traceback (most recent call last):
    ...
    neuroxai.core.errors.MethodError: occlusion: unknown value 'dize': did you mean 'dice'?
    """
    if value not in VALUES:
        raise MethodError(f"{method}: unknown value {value!r}: {suggestion(value, VALUES)}")
