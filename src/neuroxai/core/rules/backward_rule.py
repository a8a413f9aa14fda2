"""Backward rules: how a gradient passes back through the calls of a forward pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

Change = Callable[[Tensor, Tensor], Tensor]
"""Returns the gradient at a call's input, given the gradient at its output and the gradient at
its input by the ordinary chain rule. It must not modify either."""


@dataclass(frozen=True, eq=False)
class InputChanges:
    """How the gradient of a call changes at each of its differentiated inputs, in their order."""

    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Refused:
    """That a rule has no answer for a call, which makes it void on the network.

    Attributes
    ----------
    reason
        The operation and why, the part of a sentence.
    """

    reason: str


GradientChange = Change | InputChanges
"""How the gradient of a call changes."""


@dataclass(frozen=True, eq=False)
class Call:
    """A call of a torch function in a forward pass, before it runs.

    Attributes
    ----------
    function, args, kwargs
        What is called.
    activation
        The name of the activation function, such as ``relu`` or ``leaky_relu``; ``clamp`` for
        other spellings of ReLU; None for any other call.
    before
        What the same rule returned for the call whose result is the first argument.
    is_first
        Returns whether the rule changed no call between the input and this one.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    activation: str | None
    before: GradientChange | None = None
    is_first: Callable[[], bool] = lambda: True

    @property
    def name(self) -> str:
        """The bare name of the function, such as ``conv3d``."""
        return bare_name(self.function)

    @property
    def input(self) -> Tensor:
        """The first argument that is differentiated, detached from the graph."""
        given = (*self.args, *self.kwargs.values())
        tensors = (each for each in given if isinstance(each, Tensor))
        return next(each for each in tensors if each.requires_grad).detach()


@dataclass(eq=False)
class Seen:
    """What a forward pass under a rule found.

    Attributes
    ----------
    activations
        How often each activation function was called.
    unreachable
        Descriptions of calls that may be activations the rule cannot change.
    """

    activations: Counter[str] = field(default_factory=Counter)
    unreachable: dict[str, None] = field(default_factory=dict)


class BackwardRule(ABC):
    """How a gradient passes back through a network.

    A rule is a value: a frozen dataclass, so that equal requests share one backward pass. All
    rules requested at a point share one forward pass, in which each is shown every call of a
    torch function that is differentiated.
    """

    title: ClassVar[str]
    """The name in messages and notes."""

    @abstractmethod
    def watch(self, call: Call) -> GradientChange | Refused | None:
        """Return how the gradient of a call changes under this rule; None if it does not.

        What is refused makes the rule void only if the call's result is differentiated.

        It is called in the forward pass, before the call runs, as the call may overwrite its
        input. What it returns may hold tensors, but none with a graph.
        """

    def start(self, output: Tensor, gradient: Tensor) -> Tensor:
        """Return what the backward pass starts from, given the output and the target's gradient.

        Both are without a graph and have the shape of the model output.
        """
        return gradient

    def refusal(self, network: nn.Module, seen: Seen) -> str | None:
        """Return why the rule is void on a network, as a full sentence; None if it is not."""
        return None

    def notes(self, activations: Collection[str]) -> tuple[str, ...]:
        """Return what a reader must know, given the activation functions that were called."""
        return ()


@dataclass(frozen=True)
class Plain(BackwardRule):
    """The ordinary gradient."""

    title: ClassVar[str] = "the plain gradient"

    def watch(self, call: Call) -> None:
        """Change nothing."""


PLAIN = Plain()


def bare_name(function: Callable[..., Any]) -> str:
    """Return the bare name of a function, a method, or an operator of an exported graph.

    Examples
    --------
    >>> import torch
    >>> bare_name(torch.Tensor.relu_), bare_name(torch.ops.aten.relu.default)
    ('relu_', 'relu')
    """
    schema = getattr(function, "_schema", None)
    if schema is not None:
        return str(schema.name).partition("::")[2]
    return str(getattr(function, "__name__", ""))
