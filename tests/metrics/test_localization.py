"""Localization against brute force, scikit-learn and closed forms; 2D and 3D, with ties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from neuroxai.core.errors import MetricError
from neuroxai.metrics import METRICS, Judged, make_metric

SHAPES = {2: (9, 7), 3: (5, 6, 4)}
LOCAL = [name for name, metric in METRICS.items() if metric.family == "localization"]


def scene(dims: int, channels: int = 3, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """A map with many ties, an input without air, and a mask."""
    generator = torch.Generator().manual_seed(dims)
    shape = (batch, channels, *SHAPES[dims])
    values = torch.randint(-2, 4, shape, generator=generator).float()
    x = torch.rand(shape, generator=generator) + 1
    mask = torch.rand((batch, *SHAPES[dims]), generator=generator) < 0.2
    return values, x, mask


def measured(name: str, judged: Judged) -> tuple[float, ...]:
    found = make_metric(name)(judged).values
    assert None not in found
    return tuple(float(v) for v in found if v is not None)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_areas_equal_scikit_learn(dims: int, channels: int) -> None:
    values, x, mask = scene(dims, channels)
    x = x.expand(-1, channels, *x.shape[2:])
    brain = torch.ones_like(mask)
    judged = Judged(values, x, mask=mask, brain=brain)
    flat = values.clamp(min=0).sum(dim=1).flatten(1).numpy()
    truth = mask.flatten(1).numpy()
    for name, theirs in (("auroc", roc_auc_score), ("auprc", average_precision_score)):
        expected = [theirs(t, a) for t, a in zip(truth, flat, strict=True)]
        np.testing.assert_allclose(measured(name, judged), expected, atol=1e-12)


@pytest.mark.parametrize("dims", [2, 3])
def test_air_counts_neither_for_nor_against_an_area(dims: int) -> None:
    values, x, mask = scene(dims)
    brain = torch.rand(mask.shape, generator=torch.Generator().manual_seed(5)) < 0.6
    found = measured("auroc", Judged(values, x, mask=mask, brain=brain))
    a = values.clamp(min=0).sum(dim=1)
    counted = brain | mask
    expected = [
        roc_auc_score(m[c].numpy(), v[c].numpy()) for m, v, c in zip(mask, a, counted, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def by_hand(name: str, a: Tensor, mask: Tensor) -> float:
    """Each metric in loops, for a map without ties at the border."""
    pairs = [(float(v), bool(m)) for v, m in zip(a.flatten(), mask.flatten(), strict=True)]
    inside = [v for v, m in pairs if m]
    if name == "pointing_game":
        return float(max(pairs)[1])
    if name == "relevance_mass_accuracy":
        return sum(inside) / sum(v for v, _ in pairs)
    top = sorted(pairs, reverse=True)[: len(inside)]
    hits = sum(m for _, m in top)
    if name == "relevance_rank_accuracy":
        return hits / len(inside)
    assert name == "matched_iou"
    return hits / (2 * len(inside) - hits)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("evidence", ["positive", "absolute"])
@pytest.mark.parametrize(
    "name", ["pointing_game", "relevance_mass_accuracy", "relevance_rank_accuracy", "matched_iou"]
)
def test_values_without_ties_equal_loops(dims: int, evidence: str, name: str) -> None:
    _, x, mask = scene(dims)
    values = torch.randn(x.shape, generator=torch.Generator().manual_seed(7))
    judged = Judged(values, x, mask=mask, evidence=evidence)  # type: ignore[arg-type]
    parts = values.abs() if evidence == "absolute" else values.clamp(min=0)
    expected = [by_hand(name, a.sum(dim=0), m) for a, m in zip(parts.double(), mask, strict=True)]
    np.testing.assert_allclose(measured(name, judged), expected, rtol=1e-9)


def test_ties_at_the_border_count_by_their_share() -> None:
    """Of 6 equal voxels the mask has 2 of its 3, the mean of rank accuracy over all orders."""
    a = torch.tensor([[[[5.0, 1, 1, 1, 1, 1, 1, 0]]]])
    mask = torch.tensor([[[True, True, True, False, False, False, False, False]]])
    judged = Judged(a, torch.ones(1, 1, 1, 8), mask=mask)
    (found,) = measured("relevance_rank_accuracy", judged)
    drawn = []
    generator = np.random.default_rng(0)
    for _ in range(4000):
        order = sorted(range(8), key=lambda i: (-float(a[0, 0, 0, i]), generator.random()))
        drawn.append(sum(bool(mask[0, 0, i]) for i in order[:3]) / 3)
    assert found == pytest.approx(np.mean(drawn), abs=0.01)
    even = Judged(torch.ones(1, 1, 1, 8), torch.ones(1, 1, 1, 8), mask=mask)
    assert measured("pointing_game", even) == (3 / 8,)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", LOCAL)
def test_a_perfect_map_an_adversarial_one_and_chance(dims: int, name: str) -> None:
    _, x, mask = scene(dims)
    image = mask.unsqueeze(1).float()
    value = make_metric(name)
    best = value(Judged(image, x, mask=mask)).values
    worst = value(Judged(1 - image, x, mask=mask)).values
    ideal = {"centroid_distance": 0.0}.get(name, 1.0)
    assert best == pytest.approx((ideal,) * len(x), abs=1e-6)
    if name == "centroid_distance":
        assert all(v is not None and v > 0.1 for v in worst)
    elif name == "auprc":
        assert all(v is not None and v < 0.35 for v in worst)
    else:
        assert worst == (0.0,) * len(x)
    even = value(Judged(torch.ones_like(image), x, mask=mask))
    assert even.chance is not None
    assert even.values == pytest.approx(even.chance, abs=1e-6)


def test_chance_is_the_mean_of_random_maps() -> None:
    """Many drawn maps reach the printed chance level, on an anisotropic grid."""
    _, x, mask = scene(3, batch=1)
    generator = torch.Generator().manual_seed(3)
    for name in ("relevance_mass_accuracy", "relevance_rank_accuracy", "auroc", "pointing_game"):
        drawn, chance = [], 0.0
        for _ in range(400):
            values = torch.rand(x.shape, generator=generator)
            found = make_metric(name)(Judged(values, x, mask=mask))
            drawn.append(found.values[0])
            chance = float(found.chance[0] or 0)  # type: ignore[index]
        assert np.mean(np.array(drawn, float)) == pytest.approx(chance, abs=0.05), name


def test_distances_are_in_mm() -> None:
    a, mask = torch.zeros(1, 1, 5, 4, 3), torch.zeros(1, 5, 4, 3, dtype=torch.bool)
    a[0, 0, 0, 0, 0], mask[0, 3, 0, 2] = 2.0, True
    judged = Judged(a, torch.ones_like(a), mask=mask, spacing=(1.0, 1.0, 2.0))
    assert measured("centroid_distance", judged) == (5.0,)


def test_a_map_without_evidence_is_undefined_and_says_so() -> None:
    _, x, mask = scene(3)
    for name in LOCAL:
        found = make_metric(name)(Judged(torch.zeros_like(x), x, mask=mask))
        if name in ("auroc", "auprc"):  # a constant map: chance
            assert found.values == pytest.approx(found.chance)
        else:
            assert found.values == (None, None)
            assert found.notes


def test_a_missing_or_empty_mask_is_refused() -> None:
    values, x, mask = scene(2)
    with pytest.raises(MetricError, match="give mask="):
        make_metric("auroc")(Judged(values, x))
    with pytest.raises(MetricError, match="the mask is empty"):
        make_metric("auroc")(Judged(values, x, mask=torch.zeros_like(mask)))
    with pytest.raises(MetricError, match=r"the mask has shape \(2, 9\), expected \(2, 9, 7\)"):
        Judged(values, x, mask=mask[..., 0])
