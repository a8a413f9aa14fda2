"""LIME: captum's with the same sets, scikit-learn's regression, and linear networks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from networks import TASKS, Pooled, explain, image, make, relative
from neuroxai.core.errors import MethodError
from neuroxai.methods.lime import LIME, similarity, weighted_ridge


def strips(dims: int, count: int) -> Tensor:
    shape = {2: (10, 14), 3: (4, 6, 8)}[dims]
    return (torch.arange(torch.Size(shape).numel()) % count + 1).reshape(shape)


@pytest.mark.parametrize(("dims", "task"), list(itertools.product((2, 3), TASKS)))
def test_captums_lime_on_the_same_sets(dims: int, task: str) -> None:
    captum = pytest.importorskip("captum.attr")
    linear = pytest.importorskip("sklearn.linear_model")
    from captum._utils.models.linear_model import SkLearnLinearModel

    network, x = make(task, dims, 2).eval().double(), image(dims, 2, batch=1).double()
    labels, start = strips(dims, 11), 0.3 * image(dims, 2, batch=1, seed=8).double()
    method = LIME(features=labels, remover=start, samples=64)
    sets = method.draw(11, 64, torch.Generator().manual_seed(5))

    class Ridge(SkLearnLinearModel):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            super().__init__(sklearn_module="linear_model.Ridge", alpha=1.0)

        def fit(self, train_data: Any, **kwargs: Any) -> Any:
            return super().fit(train_data=train_data, **kwargs)

    def perturb(original: Tensor, **kwargs: Any) -> Iterator[Tensor]:
        yield from sets.double()[:, None]

    def weight(original: Tensor, perturbed: Tensor, z: Tensor, **kwargs: Any) -> Tensor:
        return similarity(z.double(), 0.25)

    theirs = captum.LimeBase(
        Pooled(network), Ridge(), weight, perturb, True,
        from_interp_rep_transform=lambda z, original, **kwargs: torch.where(
            z.bool()[0][labels - 1], original, start
        ),
        to_interp_rep_transform=None,
    ).attribute(x, target=2, n_samples=64)  # fmt: skip
    ours = explain(method, network, x, seed=5)
    values = torch.tensor(ours.diagnostics["feature_values"], dtype=torch.float64)
    assert relative(values, theirs.double()) <= 1e-4  # captum fits in single precision
    assert linear is not None


def test_scikit_learns_ridge() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    generator = torch.Generator().manual_seed(2)
    z = (torch.rand(40, 7, generator=generator) < 0.5).double()
    values, weights = (torch.rand(40, generator=generator).double() for _ in range(2))
    theirs = linear.Ridge(alpha=0.3).fit(z.numpy(), values.numpy(), sample_weight=weights.numpy())
    got = weighted_ridge(z, values, weights, 0.3)
    assert relative(got, torch.from_numpy(theirs.coef_)) <= 1e-10


@pytest.mark.parametrize("count", [6, 11])
def test_a_linear_network_without_penalty(count: int) -> None:
    """The coefficients are the features' contributions, from all sets and from drawn ones."""
    labels = strips(2, count)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4 * 140, 5)).double()
    x, start = image().double(), image(seed=9).double()
    method = LIME(features=labels, remover=start, ridge=0.0, samples=64)
    got = explain(method, network, x)
    weight = network[1].weight[2].detach().reshape(1, 4, 10, 14)  # type: ignore[index]
    share = (weight * (x - start)).sum(dim=1)
    expected = torch.stack([share[:, labels == k + 1].sum(dim=1) for k in range(count)], dim=1)
    values = torch.tensor(got.diagnostics["feature_values"], dtype=torch.float64)
    assert relative(values, expected) <= 1e-9
    assert got.diagnostics["exact"] == [count <= 8] * 3
    assert got.diagnostics["relative_standard_error"] <= 1e-9


def test_the_standard_error_is_that_of_other_seeds() -> None:
    network, x = make("classifier", modalities=2), image(2, 2, batch=1)
    method = LIME(features=strips(2, 11), samples=128)
    found = [explain(method, network, x, seed=s).diagnostics for s in range(12)]
    values = torch.tensor([each["feature_values"][0] for each in found])
    claimed = torch.tensor([each["feature_standard_errors"][0] for each in found]).mean(dim=0)
    assert float(claimed.mean() / values.std(dim=0).mean()) == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize("parameters", [{"width": 0.0}, {"ridge": -1.0}, {"segments": 0}])
def test_a_bad_parameter_is_refused(parameters: dict[str, float]) -> None:
    with pytest.raises(MethodError, match=r"^lime: "):
        LIME(**parameters)  # type: ignore[arg-type]
