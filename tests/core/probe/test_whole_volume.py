"""The probe: what it spends, which layers it finds, how it treats in-place work and threads."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from networks import (
    BATCH,
    CONV,
    NORM,
    SHAPES,
    TASKS,
    explain,
    image,
    make,
    quick,
    quick_methods,
    relative,
    seeded,
    snapshot,
)
from neuroxai.core.errors import LayerError, MethodError
from neuroxai.core.layers.reduction import LayerReduction
from neuroxai.core.probe.requests import InputGradient, LayerMap, Request
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.rules.guided import GUIDED
from neuroxai.core.target.restriction import Mask
from neuroxai.core.target.target import Class
from neuroxai.methods import METHODS, PAPER, make_method
from neuroxai.methods.base import Method

TARGET = 2


class Counted(nn.Module):
    """Counts how often it is called, and with how many samples."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        samples: list[int] = []
        # In a closure: an attribute of the module itself would be restored.
        self.kept: Callable[[], list[int]] = lambda: samples

    @property
    def samples(self) -> list[int]:
        return self.kept()

    def forward(self, x: Tensor) -> Tensor:
        self.samples.append(len(x))
        out: Tensor = self.inner(x)
        return out


def at_one_point(probe: WholeVolume, x: Tensor, methods: list[Method]) -> dict[str, Tensor]:
    """The methods one after the other, sharing the passes at the explained point."""
    requests = frozenset[Request]().union(*(method.requests for method in methods))
    with probe.at(x, requests):
        return {f"{m.name} {m.parameters()}": m.explain(probe, x).values for m in methods}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("task", TASKS)
def test_all_point_methods_cost_one_forward_and_two_backward_passes(dims: int, task: str) -> None:
    network, x = Counted(make(task, dims)), image(dims)
    named = "inner.second" if task == "classifier" else "inner.down"
    first = "inner.first" if task == "classifier" else "inner.enter"
    methods = [
        quick("vanilla_gradient"),
        quick("guided_backprop"),
        quick("grad_cam"),
        make_method("grad_cam", {"layer": named}),
        make_method("grad_cam", {"layer": first}),
        quick("guided_grad_cam"),
        make_method("guided_grad_cam", {"layer": named}),
    ]
    probe = WholeVolume(network, Class(TARGET))
    together = at_one_point(probe, x, methods)
    assert network.samples == [BATCH]
    assert (probe.passes.forward, probe.passes.backward) == (1, 2)
    for method in methods:
        alone = explain(method, network, x, Class(TARGET)).values
        assert torch.equal(together[f"{method.name} {method.parameters()}"], alone)


def test_what_each_method_costs_alone() -> None:
    network, x = make("segmenter"), image()
    cost = {}
    for name in (*PAPER, "deconvolution", "hirescam", "layercam"):
        probe = WholeVolume(network, Class(TARGET))
        quick(name).explain(probe, x)
        cost[name] = (probe.passes.forward, probe.passes.backward)
    # Path methods look at the explained point, at zero and a thousandth of the way from it besides
    # their way; integrated gradients also at the ends of its intervals. What sends several images
    # through at once looks first whether they see each other.
    assert cost == {
        "vanilla_gradient": (1, 1),
        "guided_backprop": (1, 1),
        "integrated_gradients": (6, 1),
        "guided_integrated_gradients": (8, 5),
        "smoothgrad": (3, 1),
        "grad_cam": (1, 1),
        "guided_grad_cam": (1, 2),
        "deconvolution": (1, 1),
        "hirescam": (1, 1),
        "layercam": (1, 1),
    }


class SeesTheBatch(nn.Module):
    """Divides by what is over the whole batch, as a norm without statistics does."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.enter = CONV[dims](4, 6, 3, padding=1)
        self.norm = NORM[dims](6, track_running_stats=False)
        self.exit = CONV[dims](6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.exit(self.norm(self.enter(x)).relu() / x.abs().max())
        return out


class Rescales(nn.Module):
    """Brings its images to one range, by what is over the whole tensor."""

    def __init__(self, by: str, dims: int) -> None:
        super().__init__()
        self.by, self.inner = by, make("segmenter", dims)

    def forward(self, x: Tensor) -> Tensor:
        axes = (0, *range(2, x.dim()))
        if self.by == "max":
            x = x / x.max()
        elif self.by == "channel":
            x = x / x.amax(dim=axes, keepdim=True)
        elif self.by == "range":
            x = (x - x.min()) / (x.max() - x.min())
        else:
            x = (x - x.mean()) / x.std()
        out: Tensor = self.inner(x)
        return out


class TakesOne(nn.Module):
    """Is made for one image at a time; of more it says nothing, or something else."""

    def __init__(self, network: nn.Module, how: str) -> None:
        super().__init__()
        self.network, self.how = network, how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "refuses" and len(x) > 1:
            raise RuntimeError("expected a batch of one")
        out: Tensor = self.network(x)
        return out[:1] if self.how == "forgets" else out


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("how", ["sees", "refuses", "forgets", "max", "channel", "range", "spread"])
@pytest.mark.parametrize("name", ["integrated_gradients", "smoothgrad"])
def test_images_that_see_each_other_go_through_one_by_one(
    name: str, how: str, dims: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network: nn.Module = seeded(3, lambda: SeesTheBatch(dims)).eval()
    if how in ("max", "channel", "range", "spread"):
        network = Rescales(how, dims).eval()
    elif how != "sees":
        network = TakesOne(make("segmenter", dims), how)
    x, seen = image(dims)[:1], Counted(network)
    parameters = {"samples": 4} if name == "smoothgrad" else {"steps": 7, "baseline": "blur"}
    found = explain(make_method(name, parameters), seen, x)
    assert sum(count > 1 for count in seen.samples) <= 2  # one look, in stock torch once more
    monkeypatch.setattr("neuroxai.core.probe.probe.BATCH_VOXELS", 1)
    assert torch.equal(found.values, explain(make_method(name, parameters), seen, x).values)


def test_a_question_not_announced_is_answered_once() -> None:
    network, x = Counted(make("segmenter")), image()
    probe = WholeVolume(network, Class(TARGET))
    with probe.at(x):
        first, again = probe.gradient(x), probe.gradient(x)
        probe.gradient(x, GUIDED)
        probe.layer_map(x, "inner.down")
        probe.layer_map(x, "inner.down")
        assert torch.equal(first, again)
        assert len(network.samples) == 4
    with pytest.raises(MethodError, match="no point is explained"):
        probe.output()


def test_score_gradient_and_layers_at_another_point() -> None:
    network, x = make("segmenter"), image()
    other = image(seed=12)
    probe = WholeVolume(network, Class(TARGET))
    with probe.at(x):
        score, gradient = probe.score(other), probe.gradient(other)
        guided, (layer, values) = probe.gradient(other, GUIDED), probe.layer_map(other, "down")
    again = WholeVolume(network, Class(TARGET))
    with again.at(other):
        assert torch.allclose(again.score(other), score)
        assert torch.equal(again.gradient(other), gradient)
        assert torch.equal(again.gradient(other, GUIDED), guided)
        assert torch.equal(again.layer_map(other, "down")[1], values)
    assert (layer.name, layer.kind, layer.shape) == ("down", "Conv2d", (7, 5, 7))


@dataclass(frozen=True)
class Both(LayerReduction):
    """Keeps activation and gradient as they are."""

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return torch.stack([activation, gradient])


def test_a_pass_hands_out_activation_and_gradient() -> None:
    network, x = make("segmenter", 3), image(3)
    probe = WholeVolume(network, Class(TARGET))
    names = ["enter", "down", "join", "enter_act"]

    with probe.at(x, [LayerMap(name, Both()) for name in names]):
        found = {name: probe.layer_map(x, name, Both()) for name in names}
    assert (probe.passes.forward, probe.passes.backward) == (1, 1)
    seen: dict[str, Tensor] = {}
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: output})
        )
        for name in names
    ]
    score = network.eval()(x)[:, TARGET].flatten(1).mean(dim=1).sum()
    for handle in handles:
        handle.remove()
    gradients = torch.autograd.grad(score, [seen[name] for name in names])
    for name, gradient in zip(names, gradients, strict=True):
        activation, found_gradient = found[name][1]
        assert relative(activation, seen[name].detach()) <= 1e-6
        assert relative(found_gradient, gradient) <= 1e-6


class Tower(nn.Module):
    """Convolutions whose rectifiers work in place or not."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.one = nn.Conv2d(4, 6, 3, padding=1)
        self.two = nn.Conv2d(6, 7, 3, stride=2, padding=1)
        self.out = nn.Conv2d(7, 5, 1)
        self.act = nn.ReLU(inplace=in_place)
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        first = self.act(self.one(x))
        second = self.two(first)
        second = second.mul_(1.5).relu_() if self.in_place else (second * 1.5).relu()
        out: Tensor = self.out(second)
        return out


@pytest.mark.parametrize("layer", ["auto", "one", "two"])
@pytest.mark.parametrize("name", ["grad_cam", "guided_grad_cam"])
def test_a_layer_that_is_overwritten_in_place(name: str, layer: str) -> None:
    x = image()
    maps = []
    for in_place in (True, False):
        network = seeded(3, lambda in_place=in_place: Tower(in_place))  # type: ignore[misc]
        with torch.no_grad():
            network.get_submodule("out").weight[TARGET].abs_()  # type: ignore[index]
        maps.append(explain(make_method(name, {"layer": layer}), network, x, Class(TARGET)).values)
    assert relative(maps[0], maps[1]) <= 1e-6


def test_shared_passes_survive_in_place_layers() -> None:
    network, x = seeded(3, lambda: Tower(True)), image()
    other = seeded(3, lambda: Tower(False))
    got = at_one_point(WholeVolume(network, Class(TARGET)), x, quick_methods())
    expected = at_one_point(WholeVolume(other, Class(TARGET)), x, quick_methods())
    for key in expected:
        assert torch.allclose(got[key], expected[key], atol=1e-7)


class Reusing(nn.Module):
    """One convolution three times, one that never runs, one that nothing depends on, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(4, 6, 3, padding=1)
        self.same = nn.Conv2d(6, 6, 3, padding=1)
        self.never = nn.Conv2d(6, 6, 3)
        self.aside = nn.Conv2d(6, 6, 3)
        self.pairs = Pair()
        self.prior = nn.Conv2d(1, 6, 1)
        self.out = nn.Conv2d(6, 5, 1)
        self.register_buffer("atlas", torch.linspace(0, 1, 140).reshape(1, 1, 10, 14))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x).relu()
        for _ in range(3):
            x = x + self.same(x).relu()
        self.aside(x)
        x = self.pairs(x)[0] + self.prior(self.atlas)
        out: Tensor = self.out(x)
        return out


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_a_reused_module_answers_call_by_call() -> None:
    network, x = seeded(4, Reusing), image()
    probe = WholeVolume(network, Class(TARGET))
    seen: list[Tensor] = []
    handle = network.get_submodule("same").register_forward_hook(
        lambda module, inputs, output: seen.append(output)
    )
    score = network(x)[:, TARGET].flatten(1).mean(dim=1).sum()
    handle.remove()
    gradients = torch.autograd.grad(score, seen)
    maps = [
        torch.einsum("bc,bcxy->bxy", g.mean(dim=(2, 3)), a.detach()).unsqueeze(1)
        for a, g in zip(seen, gradients, strict=True)
    ]
    names = {"same#1": 0, "same#2": 1, "same#3": 2, "same": 2}
    with probe.at(x, [LayerMap(name) for name in names]):
        for name, call in names.items():
            layer, values = probe.layer_map(x, name)
            assert relative(values, maps[call]) <= 1e-5
            assert layer.name == f"same#{call + 1}"


def test_a_layer_beside_the_input_has_a_map_too() -> None:
    """It depends on an atlas, not on the scan; asked for alone or with the gradient."""
    network, x = seeded(4, Reusing), image()
    probe = WholeVolume(network, Class(TARGET))
    with probe.at(x, [InputGradient(), LayerMap("prior"), LayerMap("enter")]):
        both, enter = probe.layer_map(x, "prior")[1], probe.layer_map(x, "enter")[1]
        gradient = probe.gradient(x)
    with probe.at(x):
        assert torch.allclose(probe.layer_map(x, "prior")[1], both)
        assert torch.allclose(probe.layer_map(x, "enter")[1], enter)
        assert torch.allclose(probe.gradient(x), gradient)
    weights = network.get_submodule("out").weight[TARGET].flatten()  # type: ignore[index]
    activation = network.get_submodule("prior")(network.atlas).detach()
    # Every map is added to the output voxel by voxel, so its mean gradient is weight / voxels,
    # summed over the batch that shares it.
    expected = torch.einsum("c,bcxy->bxy", BATCH * weights.detach() / 140, activation)
    assert relative(both, expected.unsqueeze(1)) <= 1e-5


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ("entre", "did you mean 'enter'"),
        ("zzzz", "convolutions: enter, same, never, aside, prior, out"),
        ("never", "'never' never ran"),
        ("same#4", "'same#4' never ran"),
        ("aside", "does not depend on layer 'aside'"),
        ("pairs", "returns a tuple"),
    ],
)
@pytest.mark.parametrize("name", ["grad_cam", "guided_grad_cam"])
def test_layers_that_cannot_be_looked_into(name: str, layer: str, says: str) -> None:
    network = seeded(4, Reusing)
    before = snapshot(network)
    with pytest.raises(LayerError, match=says):
        explain(make_method(name, {"layer": layer}), network, image())
    assert snapshot(network) == before


@pytest.mark.parametrize(("layer", "dims"), [("head", 2), ("head", 3)])
def test_a_layer_without_space_is_refused(layer: str, dims: int) -> None:
    network = make("classifier", dims)
    with pytest.raises(LayerError, match=r"'head' gives \(5,\) per sample, expected"):
        explain(make_method("grad_cam", {"layer": layer}), network, image(dims))


def test_a_layer_that_fails_does_not_fail_the_others() -> None:
    network, x = make("classifier"), image()
    probe = WholeVolume(network, Class(TARGET))
    with probe.at(x, [InputGradient(), LayerMap("head"), LayerMap("second")]):
        assert probe.gradient(x).shape == x.shape
        assert probe.layer_map(x, "second")[1].shape == (BATCH, 1, 5, 7)
        with pytest.raises(LayerError, match="head"):
            probe.layer_map(x, "head")
    assert probe.passes.forward == 1


def test_a_target_of_one_voxel_does_not_cancel() -> None:
    """Its gradient is zero nearly everywhere, and yet it adds up."""
    network, x = make("segmenter", 3), image(3)
    mask = torch.zeros(x.shape[2:], dtype=torch.bool)
    mask[1, 2, 3] = True
    probe = WholeVolume(network, Class(TARGET, within=Mask(mask)))
    explanation = make_method("grad_cam", {"layer": "enter"}).explain(probe, x)
    assert explanation.values.isfinite().all()


def test_an_all_negative_map_is_zero_and_says_so() -> None:
    network = nn.Sequential(nn.Conv2d(4, 6, 1), nn.Conv2d(6, 5, 1))
    with torch.no_grad():
        network[0].bias.fill_(100.0)  # type: ignore[operator]
        network[1].weight.fill_(-1.0)  # type: ignore[operator]
    got = explain("grad_cam", network, image())
    assert not got.values.any()
    assert got.notes == tuple(
        "the map of layer 1:input has no positive value and was rectified to zero "
        f"(sample {sample})" for sample in range(BATCH)
    )  # fmt: skip
    assert got.diagnostics["negative_fraction"] == [1.0] * BATCH
    one = explain("grad_cam", network, image(batch=1))
    assert one.notes == (
        "the map of layer 1:input has no positive value and was rectified to zero",
    )


def test_a_constant_image_gives_no_nan() -> None:
    for fill in (0.0, 3.0):
        for name in METHODS:
            values = explain(name, make("segmenter"), torch.full((2, 4, 8, 10), fill)).values
            assert torch.isfinite(values).all()


def test_a_target_that_ignores_the_input() -> None:
    class Deaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.ones(5))

        def forward(self, x: Tensor) -> Tensor:
            return self.bias.expand(len(x), 5)

    for name in ("vanilla_gradient", "integrated_gradients"):
        with pytest.raises(MethodError, match="does not depend on the input"):
            explain(name, Deaf(), image())


def test_padded_networks_lay_their_maps_on_the_padded_grid() -> None:
    class Padded(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def padded_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(-(-n // 8) * 8 for n in shape)

        def forward(self, x: Tensor) -> Tensor:
            rows, columns = x.shape[2:]
            grid = self.padded_shape((rows, columns))
            padded = nn.functional.pad(x, (0, grid[1] - columns, 0, grid[0] - rows))
            out: Tensor = self.inner(padded)[:, :, :rows, :columns]
            return out

    inner, x = make("segmenter"), image()
    got = explain(make_method("grad_cam", {"layer": "inner.down"}), Padded(inner), x).values
    padded = nn.functional.pad(x, (0, 2, 0, 6))
    from neuroxai.core.target.restriction import Box

    box = Box((0, 0), SHAPES[2])
    whole = explain(make_method("grad_cam", {"layer": "down"}), inner, padded, Class(2, within=box))
    assert relative(got, whole.values[:, :, :10, :14]) <= 1e-5


def test_two_threads_on_one_network_give_the_serial_maps() -> None:
    network, x = make("segmenter").train(), [image(seed=s) for s in range(2)]
    expected = [[explain(m, network, i).values for m in quick_methods()] for i in x]
    before = snapshot(network)
    found: list[list[Tensor]] = [[], []]
    barrier = threading.Barrier(2)

    def work(which: int) -> None:
        barrier.wait()
        for method in quick_methods():
            found[which].append(explain(method, network, x[which]).values)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert snapshot(network) == before
    for got, wanted in zip(found, expected, strict=True):
        assert all(torch.equal(g, w) for g, w in zip(got, wanted, strict=True))
        assert len(got) == len(wanted)


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_two_hundred_explanations_leave_nothing_behind() -> None:
    network, x = seeded(3, lambda: Tower(True)), image()
    names = list(METHODS)

    def some(count: int) -> None:
        for number in range(count):
            explain(names[number % len(names)], network, x, Class(TARGET))

    some(28)
    gc.collect()
    before, memory = snapshot(network), resident()
    tensors = sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())
    some(200)
    gc.collect()
    assert snapshot(network) == before
    assert sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()) <= tensors
    assert resident() - memory <= 20 * 2**20
