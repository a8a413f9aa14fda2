"""The base class of explanation methods."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from neuroxai.core.engine.precision import upcast
from neuroxai.core.errors import MethodError
from neuroxai.core.explanation import Attribution, Explanation, Quantity, tensor_hash, versions
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.requests import Request
from neuroxai.core.target.bound_target import BoundTarget
from neuroxai.methods.parameters import check_parameter, parameter_types
from neuroxai.methods.zero_maps import gradient_reason, zero_notes

_OVERFLOW = (
    "{} NaN or infinite values: the network overflows on this input; check its weights and the "
    "scale of the input"
)


@dataclass(frozen=True)
class Method(ABC):
    """A method that attributes a target to the input.

    A subclass is a frozen dataclass whose fields are the method's parameters; values are checked
    against their annotations. It implements :meth:`attribute`. This class checks the input, keeps
    the global random state out, checks the result, and adds the provenance.
    """

    name: ClassVar[str]
    """The name on the command line, in file names and in the table ``METHODS``."""
    title: ClassVar[str]
    """The name in figures and reports."""
    signed: ClassVar[bool] = True
    """Whether negative values are evidence against the target."""
    shared: ClassVar[bool] = False
    """Whether the map has a single channel for all channels of the input."""
    on_request: ClassVar[bool] = False
    """Whether ``all`` leaves the method out: it takes hundreds of passes, or is defined
    for some networks only."""
    units: ClassVar[str] = "target per unit of the network's input"
    """The unit of the map's values; after a semicolon, a remark."""
    citation: ClassVar[str]
    """DOI or arXiv number."""

    def __post_init__(self) -> None:
        """Check the types of the parameters; an overriding method calls this first."""
        for name, types in parameter_types(type(self)).items():
            check_parameter(self.name, name, getattr(self, name), types)

    @property
    def quantity(self) -> Quantity:
        """What a value of the map is; an ``amount`` per voxel keeps its sum when resampled."""
        return "gradient"

    @property
    def map_signed(self) -> bool:
        """Whether the map has a sign with these parameters."""
        return self.signed

    @property
    def map_units(self) -> str:
        """The unit of the map's values with these parameters."""
        return self.units

    @property
    def requests(self) -> frozenset[Request]:
        """What the method requests at the explained point, so that methods share passes."""
        return frozenset()

    @property
    def gradients(self) -> int:
        """The number of input gradients per sample, for progress."""
        return 0

    @property
    def forwards(self) -> int:
        """The number of forward passes per sample without a gradient, for an estimate of time."""
        return 0

    def forwards_at(self, x: Tensor) -> int:
        """Return :attr:`forwards` at an input; a perturbation method's depend on its size."""
        return self.forwards

    @abstractmethod
    def attribute(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Attribution:
        """Compute the attribution of the probe's target at ``x``, ``(B, C, *S)``.

        All random numbers are drawn from ``generator``.
        """

    def zero_reason(self, probe: Probe, x: Tensor, sample: int) -> str:
        """Return the note on a sample's map that is exactly zero."""
        return gradient_reason(probe, x, sample, self.title)

    def zero_notes(self, probe: Probe, x: Tensor, values: Tensor) -> Iterator[str]:
        """Yield the notes on maps, or modalities of them, that are exactly zero."""
        yield from zero_notes(self.zero_reason, probe, x, values)

    def explain(
        self, probe: Probe, x: Tensor, *, seed: int = 0, input_sha256: str | None = None
    ) -> Explanation:
        """Return the explanation of the probe's target at ``x``.

        Parameters
        ----------
        probe
            The network and the target.
        x
            The input, ``(B, C, *S)``.
        seed
            Seed of random numbers.
        input_sha256
            Hash of the input for the provenance, if it is known.

        Raises
        ------
        MethodError
            If the input or a parameter is unusable, or the method is void on this network.
        """
        check_input(x)
        x = upcast(x)
        generator = torch.Generator().manual_seed(seed)
        opened = nullcontext() if probe.explained is x else probe.at(x, self.requests)
        started = time.perf_counter()
        with opened:
            # The probe enables gradients itself; an input that requires them starts no graph.
            with torch.no_grad():
                attribution = self.attribute(probe, x, generator)
            self._check_output(attribution.values, x)
            score = probe.score(x)
            if not bool(torch.isfinite(score).all()):
                raise MethodError(_OVERFLOW.format(f"{self.name}: the target has"))
            bound = probe.target
            with torch.no_grad():
                zero = tuple(self.zero_notes(probe, x, attribution.values))
            again, varies = probe.second_pass(), dict[str, Any]()
            if again is not None:
                zero = (again.note([float(s) for s in score]), *zero)
                varies = {"second_pass": dataclasses.asdict(again)}
            seconds = time.perf_counter() - started
            return Explanation(
                values=attribution.values.detach().cpu(),
                method=self.name,
                title=self.title,
                signed=self.map_signed,
                units=self.map_units,
                quantity=self.quantity,
                parameters=self.parameters(),
                target=bound.description,
                score=tuple(float(s) for s in score),
                layer=attribution.layer,
                diagnostics={**attribution.diagnostics, **varies},
                notes=(*attribution.warnings, *bound.notes, *zero, *attribution.notes),
                provenance={
                    "seed": seed,
                    "device": str(x.device),
                    "dtype": str(x.dtype).removeprefix("torch."),
                    "precision": probe.settings.precision,
                    "threads": torch.get_num_threads(),
                    "input_sha256": input_sha256 or tensor_hash(x),
                    "input_shape": list(x.shape),
                    "versions": versions(),
                    "citation": self.citation,
                    **probe.describe(),
                },
                seconds=seconds,
                within=self._within(probe, bound),
                shared=self.shared or attribution.values.shape[1] != x.shape[1],
            )

    @staticmethod
    def _within(probe: Probe, bound: BoundTarget) -> Tensor | None:
        """Return the mask of a restricted target, on the image if its place there is known."""
        if bound.mask is None:
            return None
        mask = bound.mask.cpu() > 0
        covered = probe.outputs.covered(probe.output())
        return mask if covered is None else covered.embed(mask)

    def parameters(self) -> dict[str, Any]:
        """Return the parameters, ready for JSON."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    def _check_output(self, values: Tensor, x: Tensor) -> None:
        expected = {tuple(x.shape), (x.shape[0], 1, *x.shape[2:])}
        if tuple(values.shape) not in expected:
            raise MethodError(
                f"{self.name} returned the shape {tuple(values.shape)}, "
                f"expected {tuple(x.shape)} or one channel of it"
            )
        if not bool(torch.isfinite(values).all()):
            raise MethodError(_OVERFLOW.format(f"{self.name} returned"))


def require(condition: bool, method: str, sentence: str) -> None:
    """Raise unless a condition on a parameter holds."""
    if not condition:
        raise MethodError(f"{method}: {sentence}")


def check_input(x: object) -> None:
    """Raise if an input is not a batch of images.

    Raises
    ------
    MethodError
        If it is not a floating point tensor ``(B, C, *S)`` of finite values.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise MethodError(f"the input is {got}, expected a floating point tensor (B, C, *S)")
    if torch.is_inference_mode_enabled() or x.is_inference():
        raise MethodError(
            "the input was made in torch.inference_mode(), which disables gradients: explain "
            "outside of it, and pass x.clone() of a tensor that was made within"
        )
    if x.dim() < 3:
        raise MethodError(
            f"the input has shape {tuple(x.shape)}, expected (B, C, H, W) or (B, C, D, H, W)"
        )
    if x.numel() == 0:
        raise MethodError(
            f"the input is empty, its shape is {tuple(x.shape)}: pass at least one voxel"
        )
    if not bool(torch.isfinite(x).all()):
        raise MethodError("the input has NaN or infinite values: replace them before explaining")


def _plain(value: Any) -> Any:
    if isinstance(value, Method):
        return {"method": value.name, **value.parameters()}
    if isinstance(value, np.ndarray):
        return f"array sha256:{hashlib.sha256(value.tobytes()).hexdigest()[:16]}"
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Tensor):
        return f"tensor sha256:{tensor_hash(value)[:16]}"
    return value
