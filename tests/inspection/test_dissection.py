"""Dissection: a planted filter, slow reference implementations, invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import networks
from neuroxai.core.errors import MethodError
from neuroxai.inspection.dissection import (
    _BIN_OF_KEY,
    BAU,
    Dissection,
    Match,
    Quantile,
    _edge,
    _keys,
)
from neuroxai.models.deepseg import DeepSeg
from planted import activations, best_of, one_filter, planted


@pytest.mark.parametrize("dims", [2, 3])
def test_the_planted_filter_matches_its_concept_best(dims: int) -> None:
    network, cases = planted(dims)
    dissection = Dissection(network, ["bright", "chance"])
    for x, masks in cases:
        dissection.add(x, masks)
    found = [match for match in dissection.matches() if match.layer != "output"]
    best = best_of(found, "bright")
    assert (best.layer, best.filter) == ("second", 2)
    assert best.iou == 1.0
    others = [m.iou for m in found if m.concept == "bright" and m != best]
    assert max(others) < 0.5
    chance = [m.iou for m in found if m.concept == "chance"]
    assert max(chance) < 0.5
    # At Bau's quantile the few active voxels are all inside the concept.
    (strict,) = [
        match
        for match in dissection.matches(BAU)
        if (match.layer, match.filter, match.concept) == ("second", 2, "bright")
    ]
    assert strict.active >= BAU
    assert strict.iou == pytest.approx(strict.active / dissection.fraction("bright"))


def test_an_indicator_scores_one_at_every_quantile_below_its_share() -> None:
    """All ties at the threshold count as active."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.Conv2d(1, 2, 1))
    with torch.no_grad():
        next(network.parameters()).fill_(1.0)
    mask = torch.zeros(8, 12, dtype=torch.bool)
    mask[2:5, 3:9] = True
    for quantile in (0.005, 0.1, 18 / 96):
        dissection = Dissection(network, ["square"])
        dissection.add(mask.float()[None, None], {"square": mask})
        (first, *_) = dissection.matches(quantile)
        assert first.iou == 1.0
        assert first.active == pytest.approx(18 / 96)


def square(rows: int, columns: int) -> Tensor:
    mask = torch.zeros(40, 36, dtype=torch.bool)
    mask[5 : 5 + rows, 6 : 6 + columns] = True
    return mask


def shifted() -> nn.Module:
    """A norm that maps zero, the output of an inactive rectifier, to minus seven."""
    norm = nn.BatchNorm2d(1)
    assert norm.running_mean is not None
    norm.running_mean.fill_(7.0)
    return norm


@pytest.mark.parametrize("after", [[], [shifted()]], ids=["rectified", "then normed"])
@pytest.mark.parametrize("quantile", ["matched", BAU, 0.3])
def test_a_rarely_active_filter_counts_as_active_only_above_its_lowest_value(
    after: list[nn.Module], quantile: Quantile
) -> None:
    """Active everywhere, its IoU would be the concept's fraction for any filter."""
    mask = square(9, 11)
    active = mask.clone()
    active[5, 6] = False
    dissection = Dissection(one_filter(nn.ReLU(), *after), ["square"])
    dissection.add(active.float()[None, None] * (1 + torch.rand(40, 36)), {"square": mask})
    (found,) = dissection.matches(quantile)
    if quantile == BAU:  # fewer voxels than are above zero
        assert found.iou == pytest.approx(found.active * 40 * 36 / 99)
        assert 0.005 <= found.active <= 98 / (40 * 36)
    else:
        assert found.iou == pytest.approx(98 / 99)
        assert found.active == pytest.approx(98 / (40 * 36))
    with torch.no_grad():
        values = dissection._network(active.float()[None, None])[0, 0]
    assert torch.equal(values >= found.threshold, active) or quantile == BAU


def test_a_small_square_scores_one_at_the_quantile_of_bau() -> None:
    mask = square(2, 2)
    dissection = Dissection(one_filter(nn.ReLU()), ["square"])
    dissection.add(mask.float()[None, None], {"square": mask})
    (found,) = dissection.matches(BAU)
    assert (found.iou, found.active) == (1.0, 4 / (40 * 36))


@pytest.mark.parametrize("after", [[], [nn.ReLU()], [nn.ReLU(), shifted()], [nn.Sigmoid()]])
def test_a_constant_filter_scores_zero(after: list[nn.Module]) -> None:
    mask = square(9, 11)
    dissection = Dissection(one_filter(*after, weight=0.0, bias=-1.0), ["square"])
    dissection.add(mask.float()[None, None], {"square": mask})
    dissection.add(torch.rand(1, 1, 40, 36), {"square": mask})
    (found,) = dissection.matches()
    assert (found.iou, found.active) == (0.0, 0.0)


CHANGED = [(1e-4, 0.0), (1e-3, 0.0), (3.0, 0.0), (1e4, 0.0), (1e5, 0.0), (1.0, 100.0), (-1.0, 3.0)]


@pytest.mark.parametrize(("weight", "bias"), CHANGED)
@pytest.mark.parametrize("gap", [0.0, 0.2])
def test_scale_and_offset_of_a_filter_do_not_matter(weight: float, bias: float, gap: float) -> None:
    mask = square(10, 9)
    images = [0.5 * torch.rand(40, 36) + (0.5 + gap) * mask for _ in range(2)]

    def dissected(weight: float, bias: float) -> Match:
        dissection = Dissection(one_filter(weight=weight, bias=bias), ["square"])
        for image in images:
            seen = image if weight > 0 else 3 - image
            dissection.add(seen[None, None], {"square": mask})
        return next(dissection.matches())

    plain, found = dissected(1.0, 0.0), dissected(weight, bias)
    assert found.iou == pytest.approx(plain.iou, abs=0.02)
    assert found.active == pytest.approx(plain.active, abs=0.002)
    if weight > 0:
        assert found.threshold == pytest.approx(weight * plain.threshold + bias, abs=0.005 * weight)
    if gap:
        assert found.iou == 1.0
    # Without a gap, bins of 6 % limit the IoU.
    assert found.iou > 0.7


@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize("first", [0.0, 0.01, 20.0])
def test_an_unusual_first_case_does_not_limit_the_bins(first: float, rectified: bool) -> None:
    """The filter is inactive, weak, or stronger than in any later case."""
    mask = square(10, 9)
    image = 0.5 * torch.rand(40, 36) + 0.7 * mask
    network = one_filter(nn.ReLU()) if rectified else one_filter(bias=2.0)
    dissection = Dissection(network, ["square"])
    dissection.add(first * image[None, None], {"square": mask & (first > 1)})
    for _ in range(3):
        dissection.add(image[None, None], {"square": mask & (first < 1)})
    (found,) = dissection.matches()
    assert found.iou == 1.0


def test_a_rectified_filter_that_is_never_zero_is_resolved() -> None:
    mask = square(10, 9)
    image = 0.3 * torch.rand(40, 36) + 0.5 * mask
    dissection = Dissection(one_filter(nn.ReLU(), bias=100.0), ["square"])
    dissection.add(image[None, None], {"square": mask})
    (found,) = dissection.matches()
    assert found.iou == 1.0


def test_rounding_errors_around_a_constant_are_not_active() -> None:
    """Upsampling changes the constant output of a norm by rounding errors of either sign."""
    mask = torch.zeros(45, 39, dtype=torch.bool)
    mask[9:18, 12:24] = True
    network = nn.Sequential(
        nn.Conv2d(1, 1, 3, stride=3, bias=False), nn.ReLU(), shifted(), nn.Conv2d(1, 1, 1)
    ).eval()
    with torch.no_grad():
        network[0].get_parameter("weight").fill_(1.0)
    x = mask.float()[None, None]
    dissection = Dissection(network, ["square"])
    dissection.add(x, {"square": mask})
    found = next(dissection.matches(0.5))
    with torch.no_grad():
        active = functional.interpolate(network[1](network[0](x)), (45, 39), mode="bilinear")[0, 0]
    active = active > 1e-2
    assert found.active == pytest.approx(float(active.double().mean()))
    assert found.iou == pytest.approx(float((active & mask).sum() / (active | mask).sum()))


def test_against_a_slow_implementation() -> None:
    """Thresholds and intersections counted voxel by voxel, without bins."""
    network = networks.seeded(8, lambda: DeepSeg(2, 3, filters=2, depth=2)).eval()
    generator = torch.Generator().manual_seed(4)
    cases = []
    for start in (0, 2):
        x = torch.randn(1, 2, 8, 12, 20, generator=generator)
        masks = {
            "a": torch.rand(8, 12, 20, generator=generator) < 0.3,
            "b": x[0, 0] > 1.0,
        }
        within = (slice(start, 7), slice(3, 12), slice(1, 17 - start))
        cases.append((x, masks, within))
    dissection = Dissection(network, ["a", "b"])
    for x, masks, within in cases:
        dissection.add(x, masks, within)
    ends = {unit.layer: unit.end for unit in dissection.units}
    assert ends["encoder.1.conv2"] == "encoder.1.relu2"
    quantiles: list[Quantile] = ["matched", 0.05]
    for quantile in quantiles:
        for match in dissection.matches(quantile):
            if match.layer not in ("encoder.1.conv2", "decoder.0.up", "output"):
                continue
            on, concept = [], []
            for x, masks, within in cases:
                values = activations(network, ends[match.layer], x)
                whole = functional.interpolate(values, (8, 12, 20), mode="trilinear")
                on.append(whole[0, match.filter][within].flatten())
                concept.append(masks[match.concept][within].flatten())
            a, c = torch.cat(on), torch.cat(concept)
            active = a >= match.threshold
            both, either = int((active & c).sum()), int((active | c).sum())
            assert match.iou == pytest.approx(both / either, abs=1e-9)
            assert match.active == pytest.approx(float(active.double().mean()))
            share = float(c.double().mean()) if quantile == "matched" else 0.05
            # At least the requested number of voxels, or all above the lowest value.
            assert match.active >= share - 1e-9 or torch.equal(active, a > a.min())
            # The next bin would leave too few.
            higher = a >= match.threshold + 0.07 * abs(match.threshold) + 1e-3
            assert float(higher.double().mean()) <= match.active


def test_padding_by_the_network_is_not_counted() -> None:
    """Without a box, every voxel of the image counts and none outside."""
    network = networks.seeded(8, lambda: DeepSeg(2, 3, filters=2, depth=2)).eval()
    x = torch.randn(1, 2, 6, 9, 7, generator=torch.Generator().manual_seed(4))
    masks = {"a": x[0, 0] > 1.0}
    everywhere, boxed = Dissection(network, ["a"]), Dissection(network, ["a"])
    everywhere.add(x, masks)
    boxed.add(x, masks, (slice(0, 6), slice(0, 9), slice(0, 7)))
    assert everywhere.voxels == x[0, 0].numel()
    assert list(everywhere.matches()) == list(boxed.matches())


@given(st.floats(-3000, 3000, width=32), st.floats(-3000, 3000, width=32))
@settings(max_examples=300, deadline=None)
def test_bins_are_ordered_and_at_most_six_percent_wide(a: float, b: float) -> None:
    one, other = _BIN_OF_KEY[_keys(torch.tensor([a, b])).numpy()].tolist()
    if a < b:
        assert one <= other
    if one == other and min(abs(a), abs(b)) > 1e-3:
        assert abs(a - b) <= 0.0626 * max(abs(a), abs(b))
    if abs(a) > 1e-3:
        assert _edge(one) <= a


def test_invalid_arguments_raise_errors() -> None:
    network, cases = planted(2)
    x, masks = cases[0]
    with pytest.raises(MethodError, match="no duplicates"):
        Dissection(network, ["a", "a"])
    with pytest.raises(MethodError, match="call add at least once"):
        list(Dissection(network, ["bright"]).matches())
    dissection = Dissection(network, ["bright"])
    with pytest.raises(MethodError, match="one case at a time"):
        dissection.add(torch.cat([x, x]), masks)
    with pytest.raises(MethodError, match="mask of concept bright is none"):
        dissection.add(x, {})
    dissection.add(x, masks)
    with pytest.raises(MethodError, match="expected a number between 0 and 1"):
        list(dissection.matches(1.5))
    with pytest.raises(MethodError, match="contains NaN or infinity"):
        dissection.add(x * torch.inf, masks)


def test_a_concept_without_voxels_has_no_matches() -> None:
    network, cases = planted(2)
    x, masks = cases[0]
    dissection = Dissection(network, ["bright", "absent"])
    dissection.add(x, {**masks, "absent": torch.zeros_like(masks["bright"])})
    assert {match.concept for match in dissection.matches()} == {"bright"}
    assert dissection.fraction("absent") == 0
    assert np.isclose(dissection.fraction("bright"), float(masks["bright"].double().mean()))
