"""The maps of one target, and what is to be said of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from neuroxai.core.errors import NoMapError, suggestion
from neuroxai.core.explanation import Explanation
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.patient.patient_map import PatientMap
from neuroxai.patient.prediction import Prediction


@dataclass(frozen=True, eq=False)
class Explanations(Mapping[str, Any]):
    """The maps of one target, by the method's word.

    Attributes
    ----------
    maps
        :class:`~neuroxai.patient.patient_map.PatientMap` for a case, ``Explanation`` for a tensor.
    refused
        Method to the reason why it gives no map here.
    prediction
        What the network says of the case; None for a tensor.
    output
        The model output at the explained point.
    shared_seconds
        What the passes took that the gradient, the guided gradient and all layer maps share; it
        is in none of the methods' own times.
    warnings
        What is odd about the case but safe to use, and what memory made necessary.
    memory
        The way through the network, the bytes it was expected to take and those allowed, in MB.
    deviation
        How far lower precision is from full; empty for ``fp32``.
    """

    maps: Mapping[str, PatientMap | Explanation]
    refused: Mapping[str, str]
    output: Tensor
    shared_seconds: float = 0.0
    prediction: Prediction | None = None
    warnings: tuple[str, ...] = ()
    memory: Mapping[str, Any] = field(default_factory=dict)
    deviation: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, method: str) -> Any:
        if method in self.refused:
            raise NoMapError(f"{method} gave no map: {self.refused[method]}")
        if method not in self.maps:
            raise NoMapError(f"there is no map of {method!r}: {suggestion(method, self.maps)}")
        return self.maps[method]

    def __repr__(self) -> str:
        refused = f"; no map: {', '.join(self.refused)}" if self.refused else ""
        return f"<Explanations: {', '.join(self.maps)}{refused}. {NOT_FOR_CLINICAL_USE}>"

    def __iter__(self) -> Iterator[str]:
        return iter(self.maps)

    def __len__(self) -> int:
        return len(self.maps)

    def explanation(self, method: str) -> Explanation:
        """Return a method's explanation on the network's grid."""
        found = self[method]
        explanation: Explanation = found.explanation if isinstance(found, PatientMap) else found
        return explanation
