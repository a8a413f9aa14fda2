"""CAM from the weights of the head, and the networks that have none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from networks import CLASSES, CONV, SHAPES, TASKS, explain, image, make, relative, seeded
from neuroxai.core.errors import MethodError
from neuroxai.core.probe.sliding_window import SlidingWindow
from neuroxai.core.probe.windows import Windows
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.restriction import Box
from neuroxai.core.target.target import Class, Predicted, Region
from neuroxai.methods import make_method

DIMS = pytest.mark.parametrize("dims", [2, 3])


def before_head(network: nn.Module, task: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """The activations before the head and the head's weights, by a hook."""
    seen: list[Tensor] = []
    module = network.get_submodule("third_act" if task == "classifier" else "join_act")
    handle = module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        network.eval()(x)
    handle.remove()
    head = network.get_submodule("head" if task == "classifier" else "exit")
    return seen[0], head.weight.detach().flatten(1)  # type: ignore[operator]


def enlarged(low: Tensor, x: Tensor) -> Tensor:
    mode = "bilinear" if x.dim() == 4 else "trilinear"
    return functional.interpolate(low, size=x.shape[2:], mode=mode, align_corners=False)


@DIMS
@pytest.mark.parametrize("task", TASKS)
def test_cam_is_the_head_applied_to_every_cell(dims: int, task: str) -> None:
    network, x = make(task, dims).double(), image(dims).double()
    activation, weights = before_head(network, task, x)
    got = explain("cam", network, x, Class(1))
    expected = sum(weights[1, k] * activation[:, k : k + 1] for k in range(8))
    assert isinstance(expected, Tensor)
    assert relative(got.values, enlarged(expected, x)) <= 1e-12
    assert got.layer == ("third_act" if task == "classifier" else "exit:input")
    head = network.get_submodule("head" if task == "classifier" else "exit")
    mean = expected.flatten(1).mean(dim=1) + head.bias[1]  # type: ignore[index]
    assert mean.tolist() == pytest.approx(list(got.score), rel=1e-10)
    wrong = sum(weights[0, k] * activation[:, k : k + 1] for k in range(8))
    assert isinstance(wrong, Tensor)
    assert relative(got.values, enlarged(wrong, x)) > 0.1


@DIMS
def test_other_targets_combine_the_maps_of_their_classes(dims: int) -> None:
    network, x = make("classifier", dims).double(), image(dims).double()
    activation, weights = before_head(network, "classifier", x)
    with torch.no_grad():
        logits = network(x)
    got = explain("cam", network, x, Predicted())
    chosen = weights[logits.argmax(dim=1)]
    expected = torch.einsum("bk,bk...->b...", chosen, activation).unsqueeze(1)
    assert relative(got.values, enlarged(expected, x)) <= 1e-12
    region = explain("cam", network, x, Region([1, 4]), Outputs(activation="softmax"))
    shares = logits[:, [1, 4]].softmax(dim=1) @ weights[[1, 4]]
    expected = torch.einsum("bk,bk...->b...", shares, activation).unsqueeze(1)
    assert relative(region.values, enlarged(expected, x)) <= 1e-12


@DIMS
def test_a_restriction_leaves_a_segmenters_map_as_it_is(dims: int) -> None:
    network, x = make("segmenter", dims), image(dims)
    box = Box((1,) * dims, tuple(n - 1 for n in SHAPES[dims]))
    got = explain("cam", network, x, Class(2, within=box))
    assert relative(got.values, explain("cam", network, x, Class(2)).values) <= 1e-6
    assert any("the target is restricted" in note for note in got.notes)


class Pooling(nn.Module):
    """Features, a pooling over space, and a head of any kind."""

    def __init__(self, dims: int, pool: Callable[[Tensor], Tensor], head: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(CONV[dims](4, 8, 3, padding=1), nn.ReLU())
        self.pool, self.head = pool, head

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.pool(self.features(x).flatten(2)))
        return out


def mean(x: Tensor) -> Tensor:
    return x.mean(dim=2)


def largest(x: Tensor) -> Tensor:
    return x.amax(dim=2)


@DIMS
@pytest.mark.parametrize(
    ("pool", "head"),
    [
        (mean, lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, CLASSES))),
        (mean, lambda: nn.Sequential(nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 5))),
        (largest, lambda: nn.Linear(8, CLASSES)),
        (lambda x: x[:, :, :4].mean(dim=2), lambda: nn.Linear(8, CLASSES)),
    ],
    ids=["hidden layer", "hidden layer without bias", "largest value", "part of the image"],
)
def test_another_head_is_refused(
    dims: int, pool: Callable[[Tensor], Tensor], head: Callable[[], nn.Module]
) -> None:
    network = seeded(2, lambda: Pooling(dims, pool, head()))
    with pytest.raises(MethodError, match=r"does not end in a global average pooling.*grad_cam"):
        explain("cam", network, image(dims))
    same = seeded(2, lambda: Pooling(dims, mean, nn.Linear(8, CLASSES)))
    assert explain("cam", same, image(dims)).layer == "features"


def test_a_wide_output_convolution_and_a_layer_further_back_are_refused() -> None:
    wide = seeded(1, lambda: nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Conv2d(6, 5, 3)))
    with pytest.raises(MethodError, match="1x1 output convolution"):
        explain("cam", wide, image())
    with pytest.raises(MethodError, match="directly after layer first"):
        explain(make_method("cam", {"layer": "first"}), make("classifier"), image())


def test_windows_are_refused() -> None:
    windows = Windows((8, 6), torch.ones(8, 6), overlap=0.5)
    for name in ("cam", "grad_cam_plus_plus"):
        probe = SlidingWindow(make("segmenter"), Class(1), windows=windows)
        with pytest.raises(Exception, match="window"):
            make_method(name).explain(probe, image(batch=1))


@DIMS
def test_grad_cam_plus_plus_from_true_derivatives(dims: int) -> None:
    """The paper's equation with Y = exp(S), its second and third derivatives by autograd."""
    conv = CONV[dims]
    network = seeded(
        4, lambda: nn.Sequential(conv(2, 3, 3, padding=1), nn.Tanh(), conv(3, 4, 3, padding=1),
                                 nn.ReLU(), conv(4, 5, 1)))  # fmt: skip
    network = network.double().eval()
    x = image(dims, modalities=2, batch=2).double()
    expected = []
    for sample in x:
        activation = network[1](network[0](sample[None])).detach().requires_grad_()  # type: ignore[index]
        score = network[2:](activation)[:, 1].mean()  # type: ignore[index]
        (first,) = torch.autograd.grad(score.exp(), activation, create_graph=True)
        flat, total = first.flatten(), torch.zeros_like(activation)
        second, third = torch.zeros_like(flat), torch.zeros_like(flat)
        for v in range(flat.numel()):
            (row,) = torch.autograd.grad(flat[v], activation, create_graph=True)
            second[v] = row.flatten()[v]
            third[v] = torch.autograd.grad(row.flatten()[v], activation, retain_graph=True)[
                0
            ].flatten()[v]
        shape = activation.shape
        rows = zip(*(t.reshape(shape)[0] for t in (flat, second, third, activation)), strict=True)
        for k, (g1, g2, g3, a) in enumerate(rows):
            alpha = torch.where(g1 > 0, g2 / (2 * g2 + a.sum() * g3), 0)
            total[:, k] = a * (alpha / alpha.sum() * g1.clamp(min=0)).sum()
        # exp(S) is a common factor of the paper's weights, which ours leave out.
        expected.append((total.sum(dim=1, keepdim=True) / score.exp()).clamp(min=0).detach())
    method = make_method("grad_cam_plus_plus", {"layer": "2:input"})
    got = explain(method, network, x, Class(1))
    assert relative(got.values, torch.cat(expected)) <= 1e-9
    plain = explain(make_method("grad_cam", {"layer": "2:input"}), network, x, Class(1))
    assert relative(got.values, plain.values) > 0.1
