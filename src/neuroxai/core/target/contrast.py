"""A contrast: why one class or region and not another."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import Tensor

from neuroxai.core.errors import TargetError
from neuroxai.core.target.bound_target import BoundTarget
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.restriction import Image, Restriction
from neuroxai.core.target.scale import OutputScale
from neuroxai.core.target.target import Target, parse_target

_VERSUS = " vs "


@dataclass(frozen=True)
class Contrast(Target):
    r"""The score of one target minus that of another, :math:`S_{target} - S_{against}`.

    It answers why the network prefers one class or region to another. Both scores of a segmenter
    are averaged over the same place: by default where the first one is predicted.

    Parameters
    ----------
    target, against
        Targets, or names or numbers of classes or regions.
    scale, within
        See :class:`~neuroxai.core.target.target.Class`; they apply to both.

    Examples
    --------
    >>> import torch
    >>> output = torch.tensor([[3.0, 1.0]])
    >>> Contrast("HGG", "LGG").bind(Outputs(("HGG", "LGG")), output).score(output)
    tensor([2.])
    """

    target: Target | int | str
    against: Target | int | str
    scale: OutputScale = "logit"
    within: Restriction | None = None

    def __post_init__(self) -> None:
        """Check the scale, and that both are single targets."""
        super().__post_init__()
        for each in (self.target, self.against):
            if isinstance(each, bool) or not isinstance(each, (Target, int, str)):
                raise TargetError(
                    f"a contrast of {each!r}: expected a target, or the name or number of a class "
                    "or region"
                )
            if isinstance(each, Target) and each.within is not None:
                raise TargetError(
                    f"target {each.name} of a contrast has a place of its own: give within= to the "
                    "contrast, which averages both over the same place"
                )

    @property
    def name(self) -> str:
        """Both names."""
        return f"{_name(self.target)}{_VERSUS}{_name(self.against)}"

    def channels(self, outputs: Outputs, output: Tensor) -> Tensor:
        """Return the channels of the first target, whose prediction is the place of both."""
        return self._part(self.target, outputs).channels(outputs, output)

    def bind(self, outputs: Outputs, output: Tensor) -> BoundTarget:
        """Fix both targets at the explained point; see :meth:`Target.bind`."""
        first = self._part(self.target, outputs, self.within).bind(outputs, output)
        other = self._part(self.against, outputs, Image() if output.dim() > 2 else None)
        second = dataclasses.replace(other.bind(outputs, output), mask=first.mask)
        if first.description["channels"] == second.description["channels"] and (
            first.description["negated"] == second.description["negated"]
        ):
            raise TargetError(f"target {self.name}: both are the same, so their difference is 0")
        name = f"{first.description['name']} vs {second.description['name']}"
        against = {**second.description, "within": first.description["within"]}
        return dataclasses.replace(
            first,
            against=second,
            notes=tuple(dict.fromkeys((*first.notes, *second.notes))),
            description={
                **first.description, "name": name, "kind": "contrast", "against": against,
            },
        )  # fmt: skip

    def _part(
        self, part: Target | int | str, outputs: Outputs, within: Restriction | None = None
    ) -> Target:
        """Return one of both targets, on the scale of the contrast."""
        target = part if isinstance(part, Target) else parse_target(str(part), outputs)
        found: Target = dataclasses.replace(target, scale=self.scale, within=within)  # type: ignore[type-var]
        return found


def _name(target: Target | int | str) -> str:
    return target.name if isinstance(target, Target) else str(target)


def parse_question(text: str, outputs: Outputs) -> Target:
    """Return the target for a text: a class, a region, or a contrast such as ``ET vs NCR``.

    Raises
    ------
    TargetError
        If the outputs have no class or region of a name.

    Examples
    --------
    >>> parse_question("1 vs 0", Outputs()).name
    '1 vs 0'
    """
    if text in outputs.names or text in outputs.regions or _VERSUS not in text:
        return parse_target(text, outputs)
    first, _, second = text.partition(_VERSUS)
    return Contrast(parse_target(first.strip(), outputs), parse_target(second.strip(), outputs))
