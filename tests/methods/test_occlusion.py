"""Occlusion: captum's, linear networks in closed form, and its options."""

from __future__ import annotations

import itertools

import pytest
from torch import nn

from networks import CLASSES, SHAPES, TASKS, Pooled, explain, image, make, relative, seeded
from neuroxai.core.errors import MethodError
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.target import Class
from neuroxai.methods.occlusion import Occlusion


@pytest.mark.parametrize(
    ("dims", "task", "modalities"), list(itertools.product((2, 3), TASKS, (1, 4)))
)
@pytest.mark.parametrize("each", [False, True])
def test_captums_occlusion(dims: int, task: str, modalities: int, each: bool) -> None:
    captum = pytest.importorskip("captum.attr")
    network, x = make(task, dims, modalities).eval().double(), image(dims, modalities).double()
    start = 0.3 * image(dims, modalities, seed=8).double()
    box, stride = {2: ((4, 5), (3, 2)), 3: ((3, 2, 3), (1, 2, 3))}[dims]
    theirs = captum.Occlusion(Pooled(network)).attribute(
        x, sliding_window_shapes=(1 if each else modalities, *box),
        strides=(1 if each else modalities, *stride), baselines=start, target=2,
    )  # fmt: skip
    method = Occlusion(
        box="x".join(map(str, box)), stride="x".join(map(str, stride)),
        each_modality=each, remover=start,
    )  # fmt: skip
    ours = explain(method, network, x)
    assert (
        relative(ours.values.expand_as(theirs), theirs.double()) <= 1e-6
    )  # captum rounds to single precision
    assert ours.quantity == "change"
    assert ours.shared is (not each and modalities > 1)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_linear_network(dims: int) -> None:
    """Without a box, a linear target loses the box's share of weight times difference."""
    shape = (4, *SHAPES[dims])
    network = seeded(0, lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(CLASSES))).double()
    x, start = image(dims).double(), image(dims, seed=9).double()
    network(x)
    weight = network[1].weight[2].detach().reshape(1, *shape)  # type: ignore[index]
    share = (weight * (x - start)).sum(dim=1, keepdim=True)
    got = explain(Occlusion(box=1, remover=start), network, x)
    assert relative(got.values, share) <= 1e-12
    wide = explain(Occlusion(box=2, remover=start), network, x)
    pool = nn.AvgPool2d if dims == 2 else nn.AvgPool3d
    summed = pool(2)(share) * 2**dims
    expected = summed
    for axis in range(2, 2 + dims):
        expected = expected.repeat_interleave(2, dim=axis)
    assert relative(wide.values, expected) <= 1e-12


def test_the_answer_does_not_depend_on_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = make("segmenter", 3), image(3)
    together = explain(Occlusion(box=2, stride=1), network, x)
    probe = WholeVolume(network, Class(2))
    monkeypatch.setattr("neuroxai.core.probe.probe.BATCH_VOXELS", 1)
    alone = Occlusion(box=2, stride=1).explain(probe, x)
    assert relative(alone.values, together.values) <= 1e-5
    # One at the point, one to compare batches is spared, and one per box.
    assert probe.passes.forward >= together.diagnostics["boxes"]


def test_progress_reports_every_box() -> None:
    network, x = make("classifier"), image()
    seen: list[float] = []
    probe = WholeVolume(network, Class(2))
    probe.on_output = seen.append
    method = Occlusion(box="3x4")
    found = method.explain(probe, x)
    assert sum(seen) == len(x) * found.diagnostics["boxes"] == len(x) * method.forwards_at(x)
    assert probe.passes.gradients == 0


def test_gaps_between_boxes_are_reported() -> None:
    found = explain(Occlusion(box=1, stride=2), make("classifier"), image())
    assert "never removed" in found.notes[0]
    assert bool((found.values[:, :, 1::2] == 0).all())


def test_a_removal_that_changes_nothing_is_named() -> None:
    x = image()
    found = explain(Occlusion(remover=x), make("classifier"), x)
    assert not bool(found.values.any())
    assert all("no removal changed the value" in note for note in found.notes[:3])


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"box": 0}, "at least 1"),
        ({"box": "4x"}, "box is '4x'"),
        ({"stride": -1}, "stride is -1"),
        ({"remover": "blurr"}, "unknown remover 'blurr': did you mean 'blur'"),
        ({"value": "dize"}, "unknown value 'dize': did you mean 'dice'"),
    ],
    ids=str,
)
def test_a_bad_parameter_is_refused(parameters: dict[str, object], says: str) -> None:
    with pytest.raises(MethodError, match=f"^occlusion: .*{says}"):
        Occlusion(**parameters)  # type: ignore[arg-type]


def test_edges_for_other_axes_are_refused() -> None:
    with pytest.raises(MethodError, match="'4x4x4', but the input has 2 spatial axes"):
        explain(Occlusion(box="4x4x4"), make("classifier"), image())
