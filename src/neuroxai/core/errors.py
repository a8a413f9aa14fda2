"""Exceptions for users: one sentence with the problem, the value, what was expected and a remedy.

Free of torch, so that options are checked quickly.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NeuroXAIError(Exception):
    """Base of all errors for users; the command line prints the message without a traceback."""


class CaseError(NeuroXAIError):
    """A scan, label file or case folder cannot be used."""


class ModelError(NeuroXAIError):
    """A network, checkpoint or model card cannot be used."""


class TargetError(NeuroXAIError):
    """A target does not exist in the network's output."""


class LayerError(NeuroXAIError):
    """A layer does not exist or has no map."""


class MethodError(NeuroXAIError):
    """An explanation method is unknown, has invalid parameters or does not apply to a network."""


class MetricError(NeuroXAIError):
    """A metric of a map is unknown, or lacks what it needs."""


class NoMapError(MethodError, KeyError):
    """A result has no map of a method; also a KeyError, as mappings raise."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class NoTargetError(TargetError, KeyError):
    """A result holds no explanation of a target. A ``KeyError`` too, as for any mapping."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class CancelledError(NeuroXAIError):
    """The work was cancelled by the caller."""


class OutputError(NeuroXAIError):
    """A result cannot be written."""


class TrainingError(NeuroXAIError):
    """A training run cannot be configured or resumed."""


class MissingExtraError(NeuroXAIError):
    """A feature requires packages that are not installed."""

    def __init__(self, feature: str, extra: str, missing: str) -> None:
        super().__init__(
            f"{feature} requires the package {missing}, which is not installed: "
            f"run  pip install 'neuroxai[{extra}]'"
        )


_CUTOFF = 0.6
"""Least similarity for a suggestion; the default of difflib."""


def suggestion(got: object, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?``, or the list of known names if none is similar.

    Examples
    --------
    >>> suggestion("gradcam", ["grad_cam", "smoothgrad"])
    "did you mean 'grad_cam'?"
    >>> suggestion("?", ["b", "a"])
    'known: a, b'
    """
    names = sorted(known)
    normalized = {name.lower().replace("-", "_"): name for name in names}
    key = str(got).lower().replace("-", "_")
    close = difflib.get_close_matches(key, list(normalized), n=1, cutoff=_CUTOFF)
    if close:
        return f"did you mean '{normalized[close[0]]}'?"
    return "known: " + ", ".join(names)


NETWORK_ERRORS = (
    RuntimeError, ValueError, AssertionError, IndexError, TypeError, MemoryError
)  # fmt: skip
"""Exceptions that networks raise for an input of an unsuitable shape or type."""
