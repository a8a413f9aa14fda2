"""Targets against values computed by hand, and the errors if there is nothing to explain."""

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

import neuroxai as nx
from networks import explain, image, make, relative
from neuroxai.core.errors import TargetError
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.place import EXCLUSIVE_NOTE
from neuroxai.core.target.restriction import Box, Mask, Prediction, voxel
from neuroxai.core.target.target import (
    ACTIVATED_NOTE,
    NEGATED_NOTE,
    SATURATION_NOTE,
    UNIT_RANGE_NOTE,
    Class,
    Predicted,
    Region,
    Target,
    parse_target,
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
    assert score(Region(region, scale=scale), BRATS, output) == pytest.approx(expected)  # type: ignore[arg-type]


def test_a_region_of_one_class_is_the_class() -> None:
    output = logits(3, 5)
    for scale in ("logit", "probability"):
        alone = score(Class("et", scale=scale), BRATS, output)
        assert score(Region("ET", scale=scale), BRATS, output) == pytest.approx(alone)
        assert score(Region([3], scale=scale), NAMELESS if scale == "logit" else BRATS,
                     output) == pytest.approx(alone)  # fmt: skip


def test_sigmoid_outputs() -> None:
    outputs = Outputs(("TC", "WT", "ET", "other"), activation="sigmoid")
    output = logits(3, 5)
    expected = (1 / (1 + torch.exp(-output[:, 1]))).mean(dim=(1, 2)).tolist()
    assert score(Region("WT", scale="probability"), outputs, output) == pytest.approx(expected)
    inside = output[:, 1] > 0
    rows = [output[b, 1][inside[b]].mean().item() for b in range(2)]
    assert score(Class("WT", within=Prediction()), outputs, output) == pytest.approx(rows)
    activated = Outputs(("TC", "WT", "ET", "other"), activation="sigmoid", activated=True)
    bound = Class("WT", within=Prediction()).bind(activated, output.sigmoid())
    assert bound.mask is not None
    assert torch.equal(bound.mask, inside)


def test_outputs_of_softmax_are_not_activated_again() -> None:
    output = logits(3, 5).softmax(dim=1)
    expected = output[:, [1, 3]].sum(dim=1).mean(dim=(1, 2)).tolist()
    declared = Outputs(BRATS.names, BRATS.regions, "softmax", activated=True)
    detected = Outputs(BRATS.names, BRATS.regions)
    for outputs in (declared, detected):
        for scale in ("logit", "probability"):
            bound = Region("TC", scale=scale).bind(outputs, output)
            assert bound.score(output).tolist() == pytest.approx(expected)
            assert bound.description["scale"] == "probability"
            assert bound.notes == ((ACTIVATED_NOTE,) if scale == "logit" else (SATURATION_NOTE,))
    assert Class(1).bind(NAMELESS, logits(3, 5)).notes == ()


def test_probabilities_require_the_activation() -> None:
    with pytest.raises(TargetError, match="activation='softmax' or activation='sigmoid'"):
        Class(1, scale="probability").bind(NAMELESS, logits(3, 5))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Class(4), r"class 4 does not exist: the output has 4 channels, 0 to 3"),
        (Class(-1), r"class -1 does not exist"),
        (Class("edema"), r"unknown class 'edema'"),
        (Class("NRC"), r"did you mean 'NCR'"),
        (Region("WTT"), r"unknown region 'WTT': did you mean 'WT'"),
        (Region([1, 7]), r"class 7 does not exist"),
        (Region([]), r"the region has no classes"),
        (Class(True), r"unknown class True"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_target_that_does_not_exist(target: Target, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        target.bind(BRATS, logits(3, 5))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Class("ET"), "have no names, so give a number from 0 to 3"),
        (Region("ET"), "give channel numbers"),
    ],
)
def test_a_name_for_a_nameless_output(target: Target, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        target.bind(NAMELESS, logits(3, 5))


def test_numpy_integers_are_accepted() -> None:
    output = logits(3, 5)
    assert score(Class(np.int64(2)), NAMELESS, output) == score(Class(2), NAMELESS, output)  # type: ignore[arg-type]
    members = np.array([1, 3])
    assert score(Region(list(members)), NAMELESS, output) == score(Region([1, 3]), NAMELESS, output)


def test_prediction_of_a_single_channel() -> None:
    """The argmax over a single channel would be everywhere."""
    output = logits(3, 5)[:, :1]
    where = output[:, 0] > 0
    bound = Class(0, within=Prediction()).bind(NAMELESS, output)
    assert bound.mask is not None
    assert torch.equal(bound.mask, where)
    assert torch.equal(where, output[:, 0].sigmoid() > 0.5)
    with pytest.raises(TargetError, match="restriction to the prediction is empty"):
        Class(0, within=Prediction()).bind(NAMELESS, output - 50)
    with pytest.raises(TargetError, match="it may be a logit or a probability"):
        Class(0, within=Prediction()).bind(NAMELESS, output.sigmoid())
    activated = Outputs(activation="sigmoid", activated=True)
    again = Class(0, within=Prediction()).bind(activated, output.sigmoid())
    assert again.mask is not None
    assert torch.equal(again.mask, where)
    # Restrictions that do not depend on the prediction do not need the activation.
    Class(0, within=Mask(where)).bind(NAMELESS, output.sigmoid())
    Class(0, within=voxel((1, 2))).bind(NAMELESS, output.sigmoid())


def test_predicted() -> None:
    output = logits()
    bound = Predicted().bind(BRATS, output)
    assert bound.channels.flatten().tolist() == output.argmax(dim=1).tolist()
    assert bound.score(output).tolist() == output.amax(dim=1).tolist()
    names = [[BRATS.names[c]] for c in output.argmax(dim=1).tolist()]
    assert bound.description["classes"] == names
    with pytest.raises(TargetError, match="predicts a class for every voxel"):
        Predicted().bind(BRATS, logits(3, 5))


def test_scores_of_stacked_batches() -> None:
    """Path nodes are stacked as whole batches; each sample keeps its channels and mask."""
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


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5)], ids=["2D", "3D"])
def test_a_soft_mask_weights_the_voxels(shape: tuple[int, ...]) -> None:
    output = logits(*shape)
    weights = torch.rand(shape, generator=torch.Generator().manual_seed(1)).double()
    weights[0] = 0
    bound = Class(2, within=Mask(weights, "vessels")).bind(BRATS, output)
    by_hand = [
        sum(float(w) * float(z) for w, z in zip(weights.flatten(), sample.flatten(), strict=True))
        / float(weights.sum())
        for sample in output[:, 2]
    ]
    assert bound.score(output).tolist() == pytest.approx(by_hand)
    assert bound.description["within"] == "vessels (weighted)"
    point = output.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(bound.score(point).sum(), point)
    assert torch.allclose(gradient[0, 2], weights / weights.sum())


@pytest.mark.parametrize("dims", [2, 3])
def test_a_layer_map_within_a_soft_mask(dims: int) -> None:
    """Behind a convolution of one voxel it is the activation times weight and mask, by algebra."""
    convolution = nn.Conv2d if dims == 2 else nn.Conv3d
    x = image(dims)
    head = convolution(6, 2, 1)
    network = nn.Sequential(convolution(4, 6, 3, padding=1), nn.ReLU(), head)
    weights = torch.rand(x.shape[2:], generator=torch.Generator().manual_seed(2))
    weights[0] = 0
    found = nx.explain(network, x, "hirescam", 1, within=weights)["hirescam"]
    by_hand = (
        (network[:2](x).detach() * head.weight[1].detach()).sum(1, keepdim=True)
        * weights
        / weights.sum()
    )
    assert torch.allclose(found.values, by_hand, atol=1e-7)
    assert any("zero outside mask (weighted) by construction" in note for note in found.notes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.tensor([0.0, float("nan")]), "NaN or infinite values"),
        (torch.tensor([0.0, -0.25]), "values from -0.25 to 0, expected weights"),
        (torch.tensor([0.5, 1.5]), "values from 0.5 to 1.5, expected weights"),
        (torch.tensor([0, 1, 2, 4]), "values 0, 1, 2, 4, expected .* use mask == 4"),
        (torch.tensor([0, 255], dtype=torch.uint8), "use mask == 255, for all labels mask > 0"),
        (torch.tensor([0.0, 3.0]), "use mask == 3"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_values_that_are_not_a_mask(values: Tensor, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        Mask(values)


@pytest.mark.parametrize("activated", [False, True])
def test_a_single_output_that_rejects_its_class(activated: bool) -> None:
    """The score is the logit of the rejection, -z, or its probability, 1 - p."""
    z = torch.tensor([[-1.5], [0.75], [-0.25]]).double()
    outputs = Outputs(("tumor",), activation="sigmoid", activated=activated)
    output = z.sigmoid() if activated else z
    bound = Predicted().bind(outputs, output)
    chance = [1 / (1 + math.exp(-abs(value))) for value in z.flatten().tolist()]
    expected = chance if activated else z.abs().flatten().tolist()
    assert bound.score(output).tolist() == pytest.approx(expected)
    assert bound.score(torch.cat([output, output])).tolist() == pytest.approx(2 * expected)
    likely = Predicted(scale="probability").bind(outputs, output)
    assert likely.score(output).tolist() == pytest.approx(chance)
    assert bound.description["name"] == "predicted"  # the samples differ
    assert Predicted().bind(outputs, output[:1]).description["name"] == "not tumor"
    assert Predicted().bind(outputs, output[1:2]).description["name"] == "tumor"
    assert Class("tumor").bind(outputs, output).score(output).tolist() == output.flatten().tolist()


def test_a_negative_output_of_unknown_meaning_is_noted_and_a_regression_is_not_negated() -> None:
    output = torch.tensor([[-2.0]])
    bound = Predicted().bind(NAMELESS, output)
    assert bound.notes == (NEGATED_NOTE,)
    assert bound.score(output).tolist() == [2.0]
    regression = Predicted().bind(Outputs(activation="none"), output)
    assert regression.score(output).tolist() == [-2.0]
    assert regression.notes == ()


@pytest.mark.parametrize("dims", [2, 3])
def test_a_segmenter_of_one_channel_has_a_default_target(dims: int) -> None:
    convolution = nn.Conv2d if dims == 2 else nn.Conv3d
    network, x = nn.Sequential(convolution(4, 1, 3), nn.Sigmoid()), image(dims)
    found = nx.explain(network, x, "vanilla_gradient")["vanilla_gradient"]
    point = x.clone().requires_grad_()
    network(point).flatten(1).mean(dim=1).sum().backward()
    assert point.grad is not None
    assert torch.allclose(found.values, point.grad, atol=1e-7)
    assert found.target["scale"] == "output"  # not called a logit
    assert UNIT_RANGE_NOTE in found.notes


@pytest.mark.parametrize(
    ("within", "message"),
    [
        (Mask(torch.zeros(3, 5)), r"the restriction to mask is empty \(sample 0\)"),
        (Mask(torch.stack([torch.ones(3, 5), torch.zeros(3, 5)])), r"empty \(sample 1\)"),
        (Mask(torch.ones(5, 3), "truth"), r"the mask 'truth' has shape \(5, 3\), expected"),
        (Mask(torch.ones(3, 3, 5)), r"has shape \(3, 3, 5\)"),
        (Box((0, 0, 0), (1, 1, 1)), r"has 3 axes, but the output's grid \(3, 5\) has 2"),
        (Box((0, 0), (3, 6)), "exceeds the output's grid"),
        (Box((1, 1), (1, 2)), "exceeds the output's grid"),
        (voxel((-1, 0)), "exceeds the output's grid"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_invalid_and_empty_restrictions(within: Any, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        Class(2, within=within).bind(BRATS, logits(3, 5))


def test_a_class_predicted_nowhere_and_a_classifier_cannot_be_restricted() -> None:
    output = logits(3, 5)
    output[:, 3] = -100
    with pytest.raises(TargetError, match="target ET: the restriction to the prediction is empty"):
        Class("ET", within=Prediction()).bind(BRATS, output)
    with pytest.raises(TargetError, match="no spatial axes to restrict"):
        Class(1, within=Prediction()).bind(BRATS, logits())


def test_parse_target() -> None:
    assert parse_target("wt", BRATS) == Region("WT")
    assert parse_target("3", BRATS) == Class("ET"), "a named class is given by name"
    assert parse_target("3", NAMELESS) == Class(3)
    with pytest.raises(TargetError, match="0 to 3"):
        parse_target("4", BRATS)
    with pytest.raises(TargetError, match="unknown target '²'"):
        parse_target("²", NAMELESS)
    assert parse_target("et", BRATS) == Class("ET"), "a class precedes a region of the same name"
    assert parse_target("PREDICTED", NAMELESS, scale="probability") == Predicted("probability")
    with pytest.raises(TargetError, match="did you mean 'background'"):
        parse_target("backgrund", BRATS)
    with pytest.raises(TargetError, match="have no names, give a class number"):
        parse_target("WT", NAMELESS)


class Returning(nn.Module):
    """Returns its logits in a container."""

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
    ("how", "key", "message"),
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
def test_outputs_without_a_tensor(how: str, key: int | str | None, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        explain("vanilla_gradient", Returning(make("segmenter"), how), image(),
                outputs=Outputs(key=key))  # fmt: skip


class Rearranged(nn.Module):
    """Returns its output with other axes or types."""

    FORMS: ClassVar[dict[str, Callable[[Tensor], Tensor]]] = {
        "squeezed": lambda y: y[:, 0],
        "channels last": lambda y: y.movedim(1, -1),
        "heads stacked": lambda y: torch.stack([y, y], dim=1),
        "labels": lambda y: y.argmax(dim=1, keepdim=True),
        "a mask": lambda y: y > 0,
        "waves": lambda y: torch.fft.fftn(y),
    }

    def __init__(self, inner: nn.Module, form: str) -> None:
        super().__init__()
        self.inner, self.form = inner, form

    def forward(self, x: Tensor) -> Tensor:
        return self.FORMS[self.form](self.inner(x))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("form", Rearranged.FORMS)
def test_outputs_of_other_axes_or_types_are_refused(form: str, dims: int) -> None:
    """Their second axis does not hold classes, although it could be indexed by one."""
    messages = {
        "channels last": "its classes are the last axis",
        "labels": "without its last step",
        "a mask": "without its last step",
        "waves": "values of torch.complex64, expected floating-point scores",
    }
    network, x = Rearranged(make("segmenter", dims), form), image(dims)
    message = messages.get(
        form, "expected .batch, classes. or .batch, classes, .space. for images of"
    )
    for name in ("vanilla_gradient", "grad_cam"):
        with pytest.raises(TargetError, match=message):
            explain(name, network, x, Class(0))
    with pytest.raises(TargetError, match=message):
        information_flow(network, x, [Class(0)])


@pytest.mark.parametrize("name", ["vanilla_gradient", "guided_backprop", "grad_cam", "smoothgrad"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("dims", [2, 3])
def test_an_image_without_a_batch_axis_is_refused(name: str, classes: int, dims: int) -> None:
    """Convolutions take (C, *S) as one image; with as many classes as channels no shape differs."""
    convolution = nn.Conv2d if dims == 2 else nn.Conv3d
    network = nn.Sequential(convolution(2, 4, 3, padding=1), nn.ReLU(), convolution(4, classes, 1))
    x = torch.rand(2, *(8, 9, 10)[:dims])
    with pytest.raises(TargetError, match=r"without a batch axis.*x\[None\]"):
        explain(name, network, x, Class(1))
    assert explain(name, network, x[None], Class(1)).values.shape[2:] == x.shape[1:]
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_a_3d_network_may_take_volumes_without_channels() -> None:
    """It adds the channel axis itself, so its convolutions see a batch."""
    network = nn.Sequential(nn.Unflatten(1, (1, 7)), nn.Conv3d(1, 3, 3), nn.Flatten())
    x = torch.rand(2, 7, 8, 9, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    network.double()(leaf)[:, 1].sum().backward()
    found = explain("vanilla_gradient", network, x, Class(1)).values
    torch.testing.assert_close(found, leaf.grad)


@pytest.mark.parametrize(
    ("combine", "rows"),
    [
        (lambda x: x.transpose(1, 2).flatten(0, 1).flatten(1)[:, :3], 14),
        (lambda x: x.flatten(1)[:, :3].mean(dim=0, keepdim=True), 1),
    ],
    ids=["one row per slice", "one row for the batch"],
)
def test_outputs_with_another_number_of_rows_are_refused(
    combine: Callable[[Tensor], Tensor], rows: int
) -> None:
    class Combining(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return combine(x)

    x = torch.rand(2, 1, 7, 8, 9)
    with pytest.raises(TargetError, match=rf"{rows} rows for 2 image\(s\)"):
        explain("vanilla_gradient", Combining(), x, Class(1))


@pytest.mark.parametrize("how", ["a list of one", "a dict of one", "an attribute"])
def test_containers_of_one_tensor(how: str) -> None:
    inner, x = make("segmenter"), image()
    key = "logits" if how == "an attribute" else None
    found = explain("vanilla_gradient", Returning(inner, how), x, outputs=Outputs(key=key))
    assert torch.equal(found.values, explain("vanilla_gradient", inner, x).values)


def test_unknown_scales_and_activations_are_refused() -> None:
    scale: Any = "prob"
    for make_target in (Class, Region):
        with pytest.raises(TargetError, match="unknown scale 'prob': known: logit, probability"):
            make_target("ET", scale=scale)
    for word in ("Sigmoid", "sigmoidal"):
        activation: Any = word
        with pytest.raises(
            TargetError, match=f"unknown activation '{word}': did you mean 'sigmoid'"
        ):
            Outputs(activation=activation)


def test_duplicate_classes_count_once() -> None:
    output = logits(3, 5)
    assert score(Region([1, 3, 1]), BRATS, output) == score(Region([1, 3]), BRATS, output)


def test_the_number_of_names_is_that_of_channels() -> None:
    with pytest.raises(TargetError, match="returns 5 channels, but outputs= names 4"):
        Class("ET").bind(BRATS, torch.zeros(2, 5, 3, 4))


def test_outputs_between_zero_and_one_have_a_note() -> None:
    output = logits(3, 5)
    assert Class(1).bind(NAMELESS, output).notes == ()
    assert Class(1).bind(NAMELESS, output.sigmoid()).notes == (UNIT_RANGE_NOTE,)
    assert Class(1).bind(Outputs(activation="softmax"), output.sigmoid()).notes == ()


def test_prediction_of_possibly_overlapping_channels_has_a_note() -> None:
    output = logits(3, 5)
    bound = Class(1, within=Prediction()).bind(NAMELESS, output)
    assert bound.notes == (EXCLUSIVE_NOTE,)
    assert bound.mask is not None
    assert torch.equal(bound.mask, output.argmax(dim=1) == 1)
    assert Class("NCR", within=Prediction()).bind(BRATS, output).notes == ()
