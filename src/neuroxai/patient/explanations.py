"""Results of explaining a network: one target's maps by method, several targets by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from neuroxai.core.errors import NoMapError, NoTargetError, suggestion
from neuroxai.core.explanation import Explanation
from neuroxai.core.probe.deviation import Deviation
from neuroxai.core.probe.strategy import MemoryUse
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.patient.prediction import Prediction


class Map(Protocol):
    """The interface of every map, of a case or of a tensor."""

    @property
    def explanation(self) -> Explanation:
        """The attribution on the network's grid, and its provenance."""
        ...

    @property
    def values(self) -> Tensor:
        """The signed attribution on the network's grid, ``(B, C, *S)``."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the reader, one sentence each."""
        ...

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> NDArray[np.generic]: ...


M_co = TypeVar("M_co", bound=Map, covariant=True)


@dataclass(frozen=True, eq=False)
class Explanations(Mapping[str, M_co], Generic[M_co]):
    """The maps of one target, by method name.

    Attributes
    ----------
    maps
        Method name to map: :class:`~neuroxai.patient.patient_map.PatientMap` for a case,
        :class:`~neuroxai.core.explanation.Explanation` for a tensor.
    refused
        Method name to the reason why it gives no map of this network.
    output
        The network's output at the explained input, ``(B, K)`` or ``(B, K, *S)``.
    memory
        The strategy of the passes, and the memory they were expected to take.
    shared_seconds
        Time of the passes that all methods and targets of the call share. It is not part of the
        methods' own times.
    prediction
        The network's answer on the patient's grid; None for a tensor.
    warnings
        Warnings about the case, the network and the passes, one sentence each.
    deviation
        Difference between the reduced precision and ``fp32``; None for ``fp32``.
    unfinished
        Names of the methods that were not computed because the call was interrupted; only
        :meth:`~neuroxai.workflows.base_session.BaseSession.explain_each` yields such a target.
    """

    maps: Mapping[str, M_co]
    refused: Mapping[str, str]
    output: Tensor
    memory: MemoryUse
    shared_seconds: float = 0.0
    prediction: Prediction | None = None
    warnings: tuple[str, ...] = ()
    deviation: Deviation | None = None
    unfinished: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """The target's name."""
        return str(next(iter(self.maps.values())).explanation.target["name"])

    def __getitem__(self, method: str) -> M_co:
        if method in self.refused:
            raise NoMapError(f"{method} gave no map: {self.refused[method]}")
        if method not in self.maps:
            raise NoMapError(f"no map of {method!r}: {suggestion(method, self.maps)}")
        return self.maps[method]

    def __repr__(self) -> str:
        refused = f"; no map: {', '.join(self.refused)}" if self.refused else ""
        return (
            f"<Explanations of {self.target}: {', '.join(self.maps)}{refused}. "
            f"{NOT_FOR_CLINICAL_USE}>"
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self.maps)

    def __len__(self) -> int:
        return len(self.maps)


class ExplanationsByTarget(Mapping[str, Explanations[M_co]], Generic[M_co]):
    """The maps of several targets, by target name.

    Examples
    --------
    >>> ExplanationsByTarget({})
    <ExplanationsByTarget: . Research use only, not for clinical use.>
    """

    def __init__(self, targets: Mapping[str, Explanations[M_co]]) -> None:
        self._targets = dict(targets)

    def __getitem__(self, target: str) -> Explanations[M_co]:
        if target not in self._targets:
            raise NoTargetError(
                f"no explanation of target {target!r}: {suggestion(target, self._targets)}"
            )
        return self._targets[target]

    def __repr__(self) -> str:
        return f"<ExplanationsByTarget: {', '.join(self._targets)}. {NOT_FOR_CLINICAL_USE}>"

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)
