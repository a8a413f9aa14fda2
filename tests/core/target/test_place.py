"""Where a target is averaged by default: the predicted region, or the image if there is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import neuroxai as nx
from neuroxai.core.errors import TargetError
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.restriction import Image, Mask, Prediction
from neuroxai.core.target.target import Class, Predicted, Region, Target

Score = Callable[[Tensor], Tensor]


def segmenter(dims: int, channels: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    conv = (nn.Conv2d, nn.Conv3d)[dims - 2]
    return nn.Sequential(conv(2, 5, 3, padding=1), nn.ReLU(), conv(5, channels, 1)).eval()


def image(dims: int) -> Tensor:
    return torch.randn(2, 2, *(7, 6, 5)[:dims], generator=torch.Generator().manual_seed(3))


def gradient_by_hand(network: nn.Module, x: Tensor, score: Score) -> Tensor:
    """Autograd of a score in double precision, one sample at a time."""
    rows = []
    for sample in x.double():
        point = sample[None].requires_grad_()
        (gradient,) = torch.autograd.grad(score(network.double()(point)[0]), point)
        rows.append(gradient[0])
    network.float()
    return torch.stack(rows).float()


def softmax_class(z: Tensor) -> Tensor:
    return z[1][z.argmax(0) == 1].mean()


def exclusive_region(z: Tensor) -> Tensor:
    return z[[0, 2]].logsumexp(0)[z.argmax(0) != 1].mean()


def overlapping_class(z: Tensor) -> Tensor:
    return z[1][z[1] > 0].mean()


def likely_class(z: Tensor) -> Tensor:
    return z.softmax(0)[1][z.argmax(0) == 1].mean()


def single_channel(z: Tensor) -> Tensor:
    return z[0][z[0] > 0].mean()


CASES: dict[str, tuple[Target | None, Outputs, int, Score]] = {
    "class": (Class(1), Outputs(), 3, softmax_class),
    "region": (Region([0, 2]), Outputs(activation="softmax"), 3, exclusive_region),
    "overlapping": (Class(1), Outputs(activation="sigmoid"), 3, overlapping_class),
    "probability": (Class(1, "probability"), Outputs(activation="softmax"), 3, likely_class),
    "one channel": (None, Outputs(activation="sigmoid"), 1, single_channel),
    "one channel, unknown": (Predicted(), Outputs(), 1, single_channel),
}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", CASES)
def test_a_segmenter_is_asked_about_the_region_that_it_predicts(kind: str, dims: int) -> None:
    target, outputs, channels, score = CASES[kind]
    network, x = segmenter(dims, channels), image(dims)
    found = nx.explain(network, x, "vanilla_gradient", target, outputs=outputs)["vanilla_gradient"]
    expected = gradient_by_hand(network, x, score)
    assert torch.allclose(found.values, expected, rtol=1e-4, atol=1e-7)
    assert found.target["within"] == "prediction"
    assert found.target["within_by_default"] is True
    requested = nx.explain(
        network, x, "vanilla_gradient", target, outputs=outputs, within="prediction"
    )["vanilla_gradient"]
    assert torch.equal(requested.values, found.values)
    assert requested.target["within_by_default"] is False


def test_the_target_of_the_paper_is_the_mean_probability_over_the_image() -> None:
    network, x = segmenter(3), image(3)
    found = nx.explain(
        network, x, "vanilla_gradient", 1,
        outputs=Outputs(activation="softmax"), within="image", scale="probability",
    )["vanilla_gradient"]  # fmt: skip
    expected = gradient_by_hand(network, x, lambda z: z.softmax(0)[1].mean())
    assert torch.allclose(found.values, expected, rtol=1e-4, atol=1e-8)
    assert (found.target["within"], found.target["scale"]) == ("image", "probability")
    assert found.within is None


def never(network: nn.Module, channel: int) -> nn.Module:
    """Return a segmenter that predicts a class nowhere."""
    with torch.no_grad():
        network[-1].bias[channel] = -100.0  # type: ignore[index]
    return network


def test_where_nothing_is_predicted_the_target_is_the_whole_image_and_says_so() -> None:
    network, x = never(segmenter(2), 1), image(2)
    for method in ("vanilla_gradient", "grad_cam"):
        found = nx.explain(network, x, method, 1)[method]
        whole = nx.explain(network, x, method, 1, within="image")[method]
        assert torch.equal(found.values, whole.values)
        assert found.target["within"] == "image"
        assert found.target["within_by_default"] is True
        (note,) = [each for each in found.notes if "predicts no 1 in this image" in each]
        assert "so the target is the mean over the whole image" in note
        assert not any("predicts no" in each for each in whole.notes)
    with pytest.raises(TargetError, match="restriction to the prediction is empty"):
        nx.explain(network, x, "vanilla_gradient", 1, within="prediction")


def test_a_sample_of_a_batch_without_a_prediction_is_explained_over_the_whole_image() -> None:
    output = torch.zeros(3, 2, 5, 4)
    output[0, 1, 2, 1] = output[2, 1, :, 3] = 4.0
    output[:, 0] += 1
    bound = Class(1, within=Prediction(by_default=True)).bind(Outputs(), output)
    assert bound.score(output).tolist() == [4.0, 0.0, 4.0]
    assert bound.mask is not None
    assert bound.mask.flatten(1).sum(dim=1).tolist() == [1, 20, 5]
    assert any("predicts no 1 in sample 1, so the target" in note for note in bound.notes)


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [(Outputs(), "may be a logit or a probability"), (Outputs(activation="none"), "regression")],
)
def test_an_unknown_prediction_leaves_the_whole_image(outputs: Outputs, reason: str) -> None:
    network = nn.Sequential(segmenter(2, 1), nn.Sigmoid())
    found = nx.explain(network, image(2), "vanilla_gradient", 0, outputs=outputs)
    assert found["vanilla_gradient"].target["within"] == "image"
    assert any(reason in note for note in found["vanilla_gradient"].notes)


def test_classifiers_are_not_restricted() -> None:
    network = nn.Sequential(segmenter(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    found = nx.explain(network, image(2), "vanilla_gradient")["vanilla_gradient"]
    assert found.target["within"] is None
    assert found.target["within_by_default"] is False
    for within in ("prediction", "image", "lesion:1"):
        with pytest.raises(TargetError, match="no spatial axes to restrict to"):
            nx.explain(network, image(2), "vanilla_gradient", within=within)
    pooled = nn.Sequential(segmenter(2), nn.AdaptiveAvgPool2d(1)).eval()  # (B, K, 1, 1)
    single = nx.explain(pooled, image(2), "vanilla_gradient", 0)["vanilla_gradient"]
    assert single.target["within"] == "image"
    assert not any("predicts no" in note for note in single.notes)


def test_the_region_stays_that_of_the_image_along_a_path() -> None:
    network, x = segmenter(2), image(2)
    with torch.no_grad():
        mask = network(x).argmax(dim=1) == 1
    method = nx.METHODS["integrated_gradients"](steps=5, rule="midpoint", baseline="zero")  # type: ignore[call-arg]
    found, by_mask = (
        nx.explain(network, x, method, 1, within=within)["integrated_gradients"]
        for within in (None, Mask(mask))
    )
    assert torch.allclose(found.values, by_mask.values, atol=1e-7)


def test_a_restriction_of_the_target_itself_is_kept() -> None:
    network, x = segmenter(2), image(2)
    whole, requested = (
        nx.explain(network, x, "vanilla_gradient", target, within=within)["vanilla_gradient"]
        for target, within in ((Class(1, within=Image()), None), (Class(1), "image"))
    )
    assert torch.equal(whole.values, requested.values)
    scaled = nx.explain(
        network, x, "vanilla_gradient", Class(1), scale="probability", within="image",
        outputs=Outputs(activation="softmax"),
    )["vanilla_gradient"]  # fmt: skip
    assert scaled.target["scale"] == "probability"
    with pytest.raises(TargetError, match="unknown scale 'odds': known: logit, probability"):
        nx.explain(network, x, "vanilla_gradient", 1, scale="odds")  # type: ignore[call-overload]


@pytest.mark.parametrize("within", ["prediction", torch.ones(4, 5)], ids=["a word", "a mask"])
def test_a_restriction_of_another_type_is_refused_with_the_way(within: object) -> None:
    with pytest.raises(TargetError, match=r"expected a restriction; name a place as nx\.explain"):
        Class(1, within=within)  # type: ignore[arg-type]
