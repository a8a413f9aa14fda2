"""Filters: the activation map of every filter of a layer, and how much each matters to a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuroxai.core.engine.untouched import untouched
from neuroxai.core.errors import LayerError, TargetError, suggestion
from neuroxai.core.layers.activation_recorder import no_gradient_error
from neuroxai.core.layers.layers import Layer
from neuroxai.core.layers.reduction import LayerReduction
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import BoundTarget, Target, same_question
from neuroxai.inspection.walk import Walk, bind_all, take_walk


@dataclass(frozen=True, eq=False)
class LayerFilters:
    """One layer's filters on one input.

    Attributes
    ----------
    layer
        The layer.
    activations
        ``(B, C, *S_layer)``, as the layer gave them.
    importance
        Target's word to ``(B, C)``: what each filter adds to the target to first order. The word is
        the target's name; of several with one name it says what tells them apart too, as in
        ``1 (probability)``.
    """

    layer: Layer
    activations: Tensor
    importance: Mapping[str, Tensor]

    def ranked(self, target: str, sample: int = 0) -> list[int]:
        """Return the filters' numbers, the one that matters most first; ties by number."""
        size = self.importance[target][sample].abs()
        order: list[int] = torch.argsort(size, descending=True, stable=True).tolist()
        return order


def filters(
    network: nn.Module,
    x: Tensor,
    targets: Sequence[Target],
    layers: Sequence[str],
    outputs: Outputs | None = None,
) -> list[LayerFilters]:
    r"""Return every filter's activation map in some layers, and how much each matters.

    .. math:: c_k = \sum_v A^k_v \, \frac{\partial S}{\partial A^k_v}

    is what filter k adds to the target S to first order, signed (activation × gradient; Kindermans
    et al. 2016, arXiv:1611.07270, at a layer in place of the input). It takes one forward pass and
    one backward pass for each target.

    Parameters
    ----------
    network
        Any module; it is left as found.
    x
        ``(B, C, *S)``.
    targets
        What importance refers to; at least one.
    layers
        Names of modules with a place in the image; ``L3`` is the third layer of the information
        flow.
    outputs
        What the output channels mean.

    Raises
    ------
    LayerError
        If a layer does not exist, never ran, has no place in the image, or does not matter to any
        target.
    TargetError
        If two targets differ in nothing that has a name.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class
    >>> network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1))
    >>> found = filters(network, torch.rand(1, 1, 6, 5), [Class(1)], ["L1", "1"])
    >>> [(each.layer.name, tuple(each.activations.shape)) for each in found]
    [('0', (1, 3, 4, 3)), ('1', (1, 3, 4, 3))]
    """
    outputs = outputs or Outputs()
    modules = {name for name, _ in network.named_modules() if name}
    plain = {name.partition("#")[0] for name in layers}
    with untouched(network), torch.enable_grad():
        walk = take_walk(network, x, outputs, also=plain & modules)
        names = [_found(name, walk, modules) for name in layers]
        for name in names:
            if name in walk.recorder.without_gradients:
                raise no_gradient_error(name)
        walk.recorder.keep_only(set(names))
        bound = bind_all(targets, outputs, walk)
        importance: dict[str, dict[str, Tensor]] = {name: {} for name in names}
        words = _words(bound)
        first_order = dict.fromkeys(names, (_FirstOrder(),))
        for number, (target, word) in enumerate(zip(bound, words, strict=True), start=1):
            score = target.score(walk.output)
            reduced: dict[str, dict[LayerReduction, Tensor]] = {}
            if score.requires_grad:
                _, reduced = walk.recorder.backward(
                    score.sum(), [], first_order, retain_graph=number < len(bound)
                )
            for name in names:
                zero = torch.zeros(walk.recorder.activation(name).shape[:2])
                importance[name][word] = reduced.get(name, {}).get(_FirstOrder(), zero).cpu()
        return [
            LayerFilters(
                walk.recorder.layers[name], walk.recorder.activation(name).cpu(), importance[name]
            )
            for name in names
        ]


def _words(bound: Sequence[BoundTarget]) -> list[str]:
    """Return each target's name, and behind it what tells it from others of that name."""
    words: dict[str, BoundTarget] = {}
    found: list[str] = []
    for target in bound:
        asked = target.description
        same = [other.description for other in bound if other.description["name"] == asked["name"]]
        differs = {key for key in asked if any(other[key] != asked[key] for other in same)}
        told = [asked["kind"]] if "channels" in differs else []
        told += [asked[key] or "everywhere" for key in ("scale", "within") if key in differs]
        word = f"{asked['name']} ({', '.join(told)})" if told else str(asked["name"])
        if not _same(words.setdefault(word, target), target):
            raise TargetError(
                f"two targets that differ are both called {word!r}: ask for one at a time, or name "
                "their masks differently"
            )
        found.append(word)
    return found


def _same(one: BoundTarget, other: BoundTarget) -> bool:
    if not same_question(one.description, other.description):
        return False
    if one.mask is None or other.mask is None:
        return one.mask is other.mask
    return torch.equal(one.mask, other.mask)


@dataclass(frozen=True)
class _FirstOrder(LayerReduction):
    """Activation times gradient, summed over the cells of each filter: ``(B, C)``."""

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return (activation * gradient).flatten(2).sum(dim=2)


def _found(name: str, walk: Walk, modules: set[str]) -> str:
    """Return the label of a layer given by name, by name and call, or by its number."""
    ran = walk.recorder.layers
    if name in ran:
        return name
    flow = [label for label in ran if label in walk.calls.flow]
    number = name[1:] if name[:1] in "Ll" else ""
    if number.isdigit() and name not in modules:
        if 1 <= int(number) <= len(flow):
            return flow[int(number) - 1]
        raise LayerError(f"layer {name} does not exist: the flow has L1 to L{len(flow)}")
    if name in walk.calls.not_shown:
        raise LayerError(f"layer {name!r} has no map: {walk.calls.not_shown[name]}")
    if name.partition("#")[0] in modules:
        raise LayerError(f"layer {name!r} never ran in the forward pass: name one that does")
    raise LayerError(f"layer {name!r} does not exist: {suggestion(name, ran)}")
