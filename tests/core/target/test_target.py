"""Targets: numbers worked out by hand, and what is said when there is nothing to explain."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from networks import explain, image, make, relative
from neuroxai.core.errors import TargetError
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.restriction import Box, Mask, Prediction, voxel
from neuroxai.core.target.target import (
    ACTIVATED_NOTE,
    SATURATION_NOTE,
    STRONGEST_NOTE,
    UNIT_NOTE,
    Class,
    Predicted,
    Region,
    Target,
    named_target,
)
from neuroxai.inspection.information_flow import information_flow

BRATS = Outputs(
    ("background", "NCR", "ED", "ET"),
    {"WT": ("NCR", "ED", "ET"), "TC": ("NCR", "ET"), "ET": ("ET",)},
    "softmax",
)
NAMELESS = Outputs()


def logits(*shape: int) -> Tensor:
    return torch.randn(2, 4, *shape, generator=torch.Generator().manual_seed(0)).double()


def score(target: Target, outputs: Outputs, output: Tensor) -> list[float]:
    found: list[float] = target.bind(outputs, output).score(output).tolist()
    return found


@pytest.mark.parametrize("shape", [(), (3, 5), (2, 3, 5)], ids=["classifier", "2D", "3D"])
@pytest.mark.parametrize("region", ["WT", "TC", "ET"])
@pytest.mark.parametrize("scale", ["logit", "probability"])
def test_regions_voxel_by_voxel(shape: tuple[int, ...], region: str, scale: str) -> None:
    output = logits(*shape)
    members = {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}[region]
    expected = []
    for sample in output.numpy():
        values = []
        for at in np.ndindex(*shape):
            odds = [math.exp(sample[(k, *at)]) for k in range(4)]
            inside = sum(odds[k] for k in members)
            values.append(inside / sum(odds) if scale == "probability" else math.log(inside))
        expected.append(sum(values) / len(values))
    assert score(Region(region, output=scale), BRATS, output) == pytest.approx(expected)  # type: ignore[arg-type]


def test_a_region_of_one_class_is_the_class() -> None:
    output = logits(3, 5)
    for scale in ("logit", "probability"):
        alone = score(Class("et", output=scale), BRATS, output)
        assert score(Region("ET", output=scale), BRATS, output) == pytest.approx(alone)
        assert score(Region([3], output=scale), NAMELESS if scale == "logit" else BRATS,
                     output) == pytest.approx(alone)  # fmt: skip


def test_sigmoid_outputs() -> None:
    outputs = Outputs(("TC", "WT", "ET", "other"), activation="sigmoid")
    output = logits(3, 5)
    expected = (1 / (1 + torch.exp(-output[:, 1]))).mean(dim=(1, 2)).tolist()
    assert score(Region("WT", output="probability"), outputs, output) == pytest.approx(expected)
    inside = output[:, 1] > 0
    rows = [output[b, 1][inside[b]].mean().item() for b in range(2)]
    assert score(Class("WT", within=Prediction()), outputs, output) == pytest.approx(rows)
    activated = Outputs(("TC", "WT", "ET", "other"), activation="sigmoid", activated=True)
    bound = Class("WT", within=Prediction()).bind(activated, output.sigmoid())
    assert bound.mask is not None
    assert torch.equal(bound.mask, inside)


def test_a_network_that_ends_in_softmax_is_explained_as_it_is() -> None:
    output = logits(3, 5).softmax(dim=1)
    expected = output[:, [1, 3]].sum(dim=1).mean(dim=(1, 2)).tolist()
    told = Outputs(BRATS.names, BRATS.regions, "softmax", activated=True)
    untold = Outputs(BRATS.names, BRATS.regions)
    for outputs in (told, untold):
        for scale in ("logit", "probability"):
            bound = Region("TC", output=scale).bind(outputs, output)
            assert bound.score(output).tolist() == pytest.approx(expected)
            assert bound.description["scale"] == "probability"
            assert bound.notes == ((ACTIVATED_NOTE,) if scale == "logit" else (SATURATION_NOTE,))
    assert Class(1).bind(NAMELESS, logits(3, 5)).notes == ()


def test_probabilities_need_to_know_the_activation() -> None:
    with pytest.raises(TargetError, match="activation='softmax' or activation='sigmoid'"):
        Class(1, output="probability").bind(NAMELESS, logits(3, 5))


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (Class(4), r"class 4 does not exist: the output has 4 channels, 0 to 3"),
        (Class(-1), r"class -1 does not exist"),
        (Class("edema"), r"class 'edema' is unknown"),
        (Class("NRC"), r"did you mean 'NCR'"),
        (Region("WTT"), r"region 'WTT' is unknown: did you mean 'WT'"),
        (Region([1, 7]), r"class 7 does not exist"),
        (Region([]), r"a region of no classes"),
        (Class(True), r"class True is unknown"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_target_that_does_not_exist(target: Target, says: str) -> None:
    with pytest.raises(TargetError, match=says):
        target.bind(BRATS, logits(3, 5))


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (Class("ET"), "have no names: give a number from 0 to 3"),
        (Region("ET"), "give channel numbers"),
    ],
)
def test_a_name_for_a_nameless_output(target: Target, says: str) -> None:
    with pytest.raises(TargetError, match=says):
        target.bind(NAMELESS, logits(3, 5))


def test_numbers_of_numpy_count_as_numbers() -> None:
    output = logits(3, 5)
    assert score(Class(np.int64(2)), NAMELESS, output) == score(Class(2), NAMELESS, output)  # type: ignore[arg-type]
    members = np.array([1, 3])
    assert score(Region(list(members)), NAMELESS, output) == score(Region([1, 3]), NAMELESS, output)


def test_what_one_channel_predicts_is_not_everything() -> None:
    """The largest of one channel is always that one."""
    output = logits(3, 5)[:, :1]
    where = output[:, 0] > 0
    bound = Class(0, within=Prediction()).bind(NAMELESS, output)
    assert bound.mask is not None
    assert torch.equal(bound.mask, where)
    assert torch.equal(where, output[:, 0].sigmoid() > 0.5)
    with pytest.raises(TargetError, match="restriction to prediction is empty"):
        Class(0, within=Prediction()).bind(NAMELESS, output - 50)
    with pytest.raises(TargetError, match="a logit or a probability may: say which"):
        Class(0, within=Prediction()).bind(NAMELESS, output.sigmoid())
    told = Outputs(activation="sigmoid", activated=True)
    again = Class(0, within=Prediction()).bind(told, output.sigmoid())
    assert again.mask is not None
    assert torch.equal(again.mask, where)
    # What does not ask where it is predicted does not need to be told.
    Class(0, within=Mask(where)).bind(NAMELESS, output.sigmoid())
    Class(0, within=voxel((1, 2))).bind(NAMELESS, output.sigmoid())


def test_predicted() -> None:
    output = logits()
    bound = Predicted().bind(BRATS, output)
    assert bound.channels.flatten().tolist() == output.argmax(dim=1).tolist()
    assert bound.score(output).tolist() == output.amax(dim=1).tolist()
    names = [[BRATS.names[c]] for c in output.argmax(dim=1).tolist()]
    assert bound.description["classes"] == names
    with pytest.raises(TargetError, match="differs from voxel to voxel"):
        Predicted().bind(BRATS, logits(3, 5))


def test_a_bound_target_reads_stacked_samples_in_order() -> None:
    """Nodes of a path are stacked as whole batches: channels and masks go with their sample."""
    output = logits(3, 5)
    masks = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(1)) > 0.5
    bound = Class(2, within=Mask(masks)).bind(BRATS, output)
    shifted = output + 1
    stacked = bound.score(torch.cat([output, shifted]))
    assert torch.allclose(stacked, torch.cat([bound.score(output), bound.score(shifted)]))
    classes = logits()
    predicted = Predicted().bind(BRATS, classes)
    assert torch.equal(
        predicted.score(torch.cat([classes, -classes])),
        torch.cat([classes.amax(dim=1), -classes.amax(dim=1)]),
    )


def test_restrictions() -> None:
    output = logits(3, 5)
    one = output[:, 2, 1, 4].tolist()
    assert score(Class(2, within=voxel((1, 4))), BRATS, output) == pytest.approx(one)
    corner = output[:, 2, 0:2, 1:4].mean(dim=(1, 2)).tolist()
    assert score(Class(2, within=Box((0, 1), (2, 4))), BRATS, output) == pytest.approx(corner)
    everywhere = Class(2, within=Mask(torch.ones(3, 5, dtype=torch.uint8), "brain"))
    assert score(everywhere, BRATS, output) == pytest.approx(score(Class(2), BRATS, output))
    assert everywhere.bind(BRATS, output).description["within"] == "brain"
    region = Region("TC", within=Prediction())
    inside = torch.isin(output.argmax(dim=1), torch.tensor([1, 3]))
    bound = region.bind(BRATS, output)
    assert bound.mask is not None
    assert torch.equal(bound.mask, inside)


@pytest.mark.parametrize(
    ("within", "says"),
    [
        (Mask(torch.zeros(3, 5)), r"the restriction to mask is empty \(sample 0\)"),
        (Mask(torch.stack([torch.ones(3, 5), torch.zeros(3, 5)])), r"empty \(sample 1\)"),
        (Mask(torch.ones(5, 3), "truth"), r"the mask 'truth' has shape \(5, 3\), expected"),
        (Mask(torch.ones(3, 3, 5)), r"has shape \(3, 3, 5\)"),
        (Box((0, 0, 0), (1, 1, 1)), r"has 3 axes, the output's grid \(3, 5\) has 2"),
        (Box((0, 0), (3, 6)), "does not lie inside"),
        (Box((1, 1), (1, 2)), "does not lie inside"),
        (voxel((-1, 0)), "does not lie inside"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_restrictions_that_leave_nothing(within: Any, says: str) -> None:
    with pytest.raises(TargetError, match=says):
        Class(2, within=within).bind(BRATS, logits(3, 5))


def test_a_class_predicted_nowhere_and_a_classifier_cannot_be_restricted() -> None:
    output = logits(3, 5)
    output[:, 3] = -100
    with pytest.raises(TargetError, match="target ET: the restriction to prediction is empty"):
        Class("ET", within=Prediction()).bind(BRATS, output)
    with pytest.raises(TargetError, match="no space to restrict"):
        Class(1, within=Prediction()).bind(BRATS, logits())


def test_words_of_the_command_line() -> None:
    assert named_target("wt", BRATS) == Region("WT")
    assert named_target("3", BRATS) == Class("ET"), "a class that has a name goes by it"
    assert named_target("3", NAMELESS) == Class(3)
    with pytest.raises(TargetError, match="0 to 3"):
        named_target("4", BRATS)
    with pytest.raises(TargetError, match="'²' is unknown"):
        named_target("²", NAMELESS)
    assert named_target("et", BRATS) == Class("ET"), "a class and a region of that class alone"
    assert named_target("PREDICTED", NAMELESS, output="probability") == Predicted("probability")
    with pytest.raises(TargetError, match="did you mean 'background'"):
        named_target("backgrund", BRATS)
    with pytest.raises(TargetError, match="have no names, give a number"):
        named_target("WT", NAMELESS)


class Returning(nn.Module):
    """Hands out its logits in some other container."""

    def __init__(self, inner: nn.Module, how: str) -> None:
        super().__init__()
        self.inner, self.how = inner, how

    def forward(self, x: Tensor) -> Any:
        out: Tensor = self.inner(x)
        containers = {
            "list": lambda: [out, out[..., ::2, ::2]],
            "tuple": lambda: (x, out),
            "dict": lambda: OrderedDict(aux=out[:, :1], seg=out),
            "nested": lambda: {"seg": [out]},
            "text": lambda: "logits",
            "nothing": lambda: None,
            "one number": lambda: out.sum(),
            "a list of one": lambda: [out],
            "a dict of one": lambda: {"seg": out},
            "an attribute": lambda: SimpleNamespace(logits=out, loss=out.sum()),
        }
        return containers[self.how]()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("how", "key"), [("list", 0), ("tuple", 1), ("tuple", -1), ("dict", "seg")]
)
@pytest.mark.parametrize("method", ["vanilla_gradient", "guided_grad_cam", "smoothgrad"])
def test_networks_that_return_several_outputs(how: str, key: int | str, method: str) -> None:
    inner, x = make("segmenter"), image()
    got = explain(method, Returning(inner, how), x, outputs=Outputs(key=key))
    assert relative(got.values, explain(method, inner, x).values) <= 1e-6


@pytest.mark.parametrize(
    ("how", "key", "says"),
    [
        (
            "list",
            None,
            r"returned a list of \[\(3, 5, 10, 14\), \(3, 5, 5, 7\)\], expected a tensor",
        ),
        ("tuple", 2, r"a tuple of .* \(got 2\)"),
        ("list", "seg", r"\(got 'seg'\)"),
        ("dict", None, "a dict with the keys 'aux', 'seg'"),
        ("dict", "sge", r"keys 'aux', 'seg'.*\(got 'sge'\)"),
        ("nested", "seg", "a dict with the keys 'seg'"),
        ("text", None, "returned a str"),
        ("nothing", 0, "returned a NoneType"),
        ("one number", None, r"a tensor of shape \(\), expected \(batch, classes\)"),
    ],
)
def test_outputs_that_are_no_answer(how: str, key: int | str | None, says: str) -> None:
    with pytest.raises(TargetError, match=says):
        explain("vanilla_gradient", Returning(make("segmenter"), how), image(),
                outputs=Outputs(key=key))  # fmt: skip


class Laid(nn.Module):
    """A right answer, laid out in another way."""

    WAYS: ClassVar[dict[str, Callable[[Tensor], Tensor]]] = {
        "squeezed": lambda y: y[:, 0],
        "channels last": lambda y: y.movedim(1, -1),
        "heads stacked": lambda y: torch.stack([y, y], dim=1),
        "labels": lambda y: y.argmax(dim=1, keepdim=True),
        "a mask": lambda y: y > 0,
        "waves": lambda y: torch.fft.fftn(y),
    }

    def __init__(self, inner: nn.Module, way: str) -> None:
        super().__init__()
        self.inner, self.way = inner, way

    def forward(self, x: Tensor) -> Tensor:
        return self.WAYS[self.way](self.inner(x))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("way", Laid.WAYS)
def test_answers_that_are_laid_out_otherwise_are_refused(way: str, dims: int) -> None:
    """Their second axis is no class, though a class of that number could be taken from it."""
    says = {
        "channels last": "its classes lie last",
        "labels": "without its last step",
        "a mask": "without its last step",
        "waves": "numbers of torch.complex64, expected real scores",
    }
    network, x = Laid(make("segmenter", dims), way), image(dims)
    words = says.get(way, "expected .batch, classes. or .batch, classes, .space. for images of")
    for name in ("vanilla_gradient", "grad_cam"):
        with pytest.raises(TargetError, match=words):
            explain(name, network, x, Class(0))
    with pytest.raises(TargetError, match=words):
        information_flow(network, x, [Class(0)])


@pytest.mark.parametrize("how", ["a list of one", "a dict of one", "an attribute"])
def test_outputs_that_can_mean_but_one_thing(how: str) -> None:
    inner, x = make("segmenter"), image()
    key = "logits" if how == "an attribute" else None
    found = explain("vanilla_gradient", Returning(inner, how), x, outputs=Outputs(key=key))
    assert torch.equal(found.values, explain("vanilla_gradient", inner, x).values)


def test_words_that_nobody_knows_are_refused() -> None:
    scale: Any = "prob"
    for make_target in (Class, Region):
        with pytest.raises(TargetError, match="output is 'prob': known: logit, probability"):
            make_target("ET", output=scale)
    for word in ("Sigmoid", "sigmoidal"):
        activation: Any = word
        with pytest.raises(TargetError, match=f"activation is '{word}': did you mean 'sigmoid'"):
            Outputs(activation=activation)


def test_a_class_named_twice_counts_once() -> None:
    output = logits(3, 5)
    assert score(Region([1, 3, 1]), BRATS, output) == score(Region([1, 3]), BRATS, output)


def test_names_are_as_many_as_channels() -> None:
    with pytest.raises(TargetError, match="returns 5 channels, its outputs name 4"):
        Class("ET").bind(BRATS, torch.zeros(2, 5, 3, 4))


def test_outputs_between_zero_and_one_are_called_so() -> None:
    output = logits(3, 5)
    assert Class(1).bind(NAMELESS, output).notes == ()
    assert Class(1).bind(NAMELESS, output.sigmoid()).notes == (UNIT_NOTE,)
    assert Class(1).bind(Outputs(activation="softmax"), output.sigmoid()).notes == ()


def test_what_is_predicted_of_channels_that_may_overlap_is_said() -> None:
    output = logits(3, 5)
    bound = Class(1, within=Prediction()).bind(NAMELESS, output)
    assert bound.notes == (STRONGEST_NOTE,)
    assert bound.mask is not None
    assert torch.equal(bound.mask, output.argmax(dim=1) == 1)
    assert Class("NCR", within=Prediction()).bind(BRATS, output).notes == ()
