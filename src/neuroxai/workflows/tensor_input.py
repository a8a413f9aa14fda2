"""The network and input of a session on tensors, from what a user gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroxai.core.errors import MethodError
from neuroxai.core.explanation import Explanation, tensor_hash
from neuroxai.core.layers.labels import is_auto, module_name
from neuroxai.methods.base import Method, check_input
from neuroxai.methods.make import MethodsLike, make_methods
from neuroxai.workflows.arrays import tensor_of
from neuroxai.workflows.network_call import (
    Arguments,
    NetworkCall,
    Path,
    as_arguments,
    choose_input,
    modules_of,
    named_inputs,
)
from neuroxai.workflows.network_fault import check_network

Network = nn.Module | Callable[..., Any]
"""A module, or any function of the input."""

Subject = Tensor | NDArray[Any] | tuple[Any, ...] | list[Any] | dict[str, Any]
"""The input of a network, or all its inputs."""


@dataclass(frozen=True, eq=False)
class TensorInput:
    """A module of one image, and the image.

    Attributes
    ----------
    network
        The user's module, or a :class:`~neuroxai.workflows.network_call.NetworkCall`.
    x
        The explained input, ``(B, C, *S)``.
    notes
        What was done to the input.
    provenance
        The name of the explained input, and the hashes of fixed ones; empty for a single input.
    """

    network: nn.Module
    x: Tensor
    notes: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(
        cls, network: Network, subject: Any, inputs: Any = None, explained: str | None = None
    ) -> TensorInput:
        """Return the module and input of what a user gives.

        Parameters
        ----------
        network
            A module or a function.
        subject, inputs
            The input or all inputs, and further ones; see
            :func:`~neuroxai.workflows.network_call.as_arguments`.
        explained
            The name of the input to explain.
        """
        check_network(network)
        arguments, notes = _cast(as_arguments(network, subject, inputs), network)
        single = len(arguments.args) == 1 and isinstance(arguments.args[0], Tensor)
        if isinstance(network, nn.Module) and single and not arguments.kwargs and explained is None:
            return cls(network, arguments.args[0], notes)
        if single and not arguments.kwargs:
            check_input(arguments.args[0])
        name, path = choose_input(network, arguments, explained)
        call = NetworkCall(network, arguments, path)
        if not any(True for _ in call.children()):
            notes = (*notes, f"no network was found in {call.name}, so its layers are unknown")
        fixed = {
            other: tensor_hash(value)
            for other, at in named_inputs(network, arguments).items()
            for found, value in arguments.leaves()
            if at == found and other != name
        }
        return cls(call, call.x, notes, {"input": name, "fixed_inputs_sha256": fixed})

    @staticmethod
    def arguments(network: Network, subject: Any, inputs: Any = None) -> Arguments:
        """Return the arguments of a network, with arrays as tensors."""
        return _cast(as_arguments(network, subject, inputs), network)[0]

    def methods(self, methods: MethodsLike, layer: str | None) -> list[Method]:
        """Return methods; layers may be named as in the user's own network.

        Raises
        ------
        MethodError
            If a method gives a map of places and the explained input has no space.
        """
        call = self.network
        if not isinstance(call, NetworkCall):
            return make_methods(methods, layer)
        if layer is not None and not is_auto(layer):
            layer = _own_label(call, layer)
        found = make_methods(methods, layer)
        shared = [each.name for each in found if each.shared]
        if shared and not call.is_image:
            raise MethodError(
                f"{shared[0]} needs an image, and the input {self.provenance['input']!r} has the "
                f"shape {call.given_shape}: use vanilla_gradient, integrated_gradients or another "
                "method without layers"
            )
        return found

    def describe(self, explanation: Explanation) -> Explanation:
        """Return an explanation with the shape and the name of the user's own input."""
        call = self.network
        if not isinstance(call, NetworkCall):
            return explanation
        values = explanation.values
        if not call.is_image:
            values = values.reshape(call.given_shape)
        provenance = {**explanation.provenance, **self.provenance}
        return replace(explanation, values=values, provenance=provenance)


def _own_label(call: NetworkCall, layer: str) -> str:
    """Return a layer's label in a call; the user may give that in the network itself."""
    name = module_name(layer)
    if name in dict(call.named_modules()):
        return layer
    owners = (n for n, child in call.named_children() if name in dict(child.named_modules()))
    owner = next(owners, None)
    return layer if owner is None else f"{owner}.{layer}"


def _cast(arguments: Arguments, network: Network) -> tuple[Arguments, tuple[str, ...]]:
    """Return the arguments in the precision of the network's weights, and a note if that differs.

    Single and double precision are converted; 16-bit types and integers may be meant.
    """
    weights = (p for module in modules_of(network).values() for p in module.parameters())
    own = next((each.dtype for each in weights if each.is_floating_point()), torch.float32)
    notes: dict[str, None] = {}

    def cast(path: Path, value: Any) -> Any:
        array = isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
        floating = array and value.dtype.kind == "f"
        given = tensor_of(value) if array else value
        precise = isinstance(given, Tensor) and {given.dtype, own} == {torch.float32, torch.float64}
        if precise or (floating and given.dtype != own):
            notes[_cast_note(given, own)] = None
            return given.to(own)
        return given

    return arguments.replace(cast), tuple(notes)


def _cast_note(given: Tensor, own: torch.dtype) -> str:
    old, new = (str(each).removeprefix("torch.") for each in (given.dtype, own))
    return f"the input was converted from {old} to {new}"
