"""Feature ablation: captum's, and maps whose sums are the features' values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from networks import SHAPES, TASKS, Pooled, explain, image, make, relative
from neuroxai.core.errors import MethodError
from neuroxai.methods.feature_ablation import FeatureAblation


def labels(dims: int) -> torch.Tensor:
    """Return labels 0, 3, 7 and 12 in slabs of the first axis and halves of the last."""
    found = torch.zeros(SHAPES[dims], dtype=torch.long)
    found[1:] = 3
    found[2:] = 7
    found[..., 4:] = 12
    found[0, ..., 0] = 0
    return found


@pytest.mark.parametrize(
    ("dims", "task", "modalities"), list(itertools.product((2, 3), TASKS, (1, 4)))
)
@pytest.mark.parametrize("each", [False, True])
def test_captums_feature_ablation(dims: int, task: str, modalities: int, each: bool) -> None:
    captum = pytest.importorskip("captum.attr")
    network, x = make(task, dims, modalities).eval().double(), image(dims, modalities).double()
    start, given = 0.3 * image(dims, modalities, seed=8).double(), labels(dims)
    mask = given.expand(1, modalities, *given.shape).clone()
    if each:
        mask = mask + 100 * torch.arange(modalities).reshape(1, -1, *[1] * dims)
    theirs = captum.FeatureAblation(Pooled(network)).attribute(
        x, baselines=start, feature_mask=mask, target=2
    )
    method = FeatureAblation(features=given, each_modality=each, remover=start)
    ours = explain(method, network, x)
    sizes = torch.ones_like(given, dtype=torch.double)
    for label in given.unique():
        sizes[given == label] = float((given == label).sum())
    painted = ours.values * sizes  # the value of each feature in all of its voxels
    expected = torch.where(given > 0, theirs, 0)
    assert relative(painted.expand_as(expected), expected) <= 1e-9
    values = torch.tensor(ours.diagnostics["feature_values"])
    assert relative(ours.values.flatten(1).sum(dim=1), values.sum(dim=1)) <= 1e-5
    assert ours.quantity == "amount"
    assert ours.diagnostics["feature_ids"][0][:3] == [3, 7, 12]


def test_modalities_are_features() -> None:
    network, x = make("segmenter", 3), image(3)
    found = explain(FeatureAblation(features="modalities", remover="zero"), network, x)
    for c in range(4):
        without = x.clone()
        without[:, c] = 0
        change = Pooled(network.eval())(x)[:, 2] - Pooled(network)(without)[:, 2]
        assert torch.allclose(found.values[:, c].flatten(1).sum(dim=1), change, atol=1e-6)


def test_labels_of_any_kind_and_labels_that_do_not_fit() -> None:
    network, x = make("classifier"), image()
    whole = labels(2)
    first = explain(FeatureAblation(features=whole), network, x).values
    for same in (whole.numpy(), whole.numpy().astype(np.float32), whole[None], whole[None, None]):
        assert torch.equal(explain(FeatureAblation(features=same), network, x).values, first)
    with pytest.raises(MethodError, match=r"shape \(5, 5\), expected \(10, 14\)"):
        explain(FeatureAblation(features=torch.ones(5, 5)), network, x)
    with pytest.raises(MethodError, match="fractions"):
        explain(FeatureAblation(features=0.5 * torch.ones(10, 14)), network, x)
    with pytest.raises(MethodError, match="0 everywhere"):
        explain(FeatureAblation(features=torch.zeros(10, 14)), network, x)
    with pytest.raises(MethodError, match="unknown features 'supervoxel': did you mean"):
        FeatureAblation(features="supervoxel")
