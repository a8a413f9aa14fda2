"""The errors a user may meet: one sentence each, that says what, got, expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NeuroXAIError(Exception):
    """Base of all errors that speak to a user; the CLI prints the sentence and nothing else."""


class CaseError(NeuroXAIError):
    """A scan, a label file or a case folder cannot be used."""


class ModelError(NeuroXAIError):
    """A network, a checkpoint or a card cannot be used."""


class TargetError(NeuroXAIError):
    """The thing to be explained does not exist in the network's output."""


class LayerError(NeuroXAIError):
    """A layer cannot be looked into."""


class MethodError(NeuroXAIError):
    """An explanation method is unknown, badly parametrized or void on this network."""


class NoMapError(MethodError, KeyError):
    """A result holds no map of a method; a KeyError too, so that mappings behave as ever."""

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
    """A feature needs packages that are not installed."""

    def __init__(self, feature: str, extra: str, missing: str) -> None:
        super().__init__(
            f"{feature} needs the package {missing}, which is not installed: "
            f"run  pip install 'neuroxai[{extra}]'"
        )


def suggestion(got: object, known: Iterable[str]) -> str:
    """Return ``(did you mean 'x'?)`` or the list of known names, ready to end a sentence.

    Examples
    --------
    >>> suggestion("gradcam", ["grad_cam", "smoothgrad"])
    "did you mean 'grad_cam'?"
    >>> suggestion("?", ["b", "a"])
    'known: a, b'
    """
    names = sorted(known)
    folded = {name.lower().replace("-", "_"): name for name in names}
    key = str(got).lower().replace("-", "_")
    close = difflib.get_close_matches(key, list(folded), n=1, cutoff=0.6)
    if close:
        return f"did you mean '{folded[close[0]]}'?"
    return "known: " + ", ".join(names)


NETWORK_ERRORS = (
    RuntimeError, ValueError, AssertionError, IndexError, TypeError, MemoryError
)  # fmt: skip
"""What networks raise on an image that does not suit them."""
