"""A memory budget: what is measured, which strategy is chosen, and the fallback."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import cases
from networks import relative
from neuroxai.cli import app
from neuroxai.core.engine.fast_path import is_supported
from neuroxai.core.engine.memory import available_memory, is_out_of_memory, parse_size
from neuroxai.core.errors import ModelError
from neuroxai.core.probe.memory_plan import MemoryPlanner, plan_memory
from neuroxai.core.probe.strategy import Strategy
from neuroxai.core.target.outputs import Outputs
from neuroxai.data.case import Case
from neuroxai.methods import make_method
from neuroxai.models.deepseg import DeepSeg
from neuroxai.models.model import Model
from neuroxai.workflows.explain import explain
from neuroxai.workflows.predict import predict

GB = 10**9


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * GB), ("512MiB", 2**29), ("1.5g", 15 * 10**8), (77, 77), ("100 kB", 10**5)],
)
def test_sizes_are_parsed(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-4GB", "0", "4XB", "4 GB GB"])
def test_invalid_sizes_raise_an_error(text: str) -> None:
    with pytest.raises(ModelError, match="use for example 4GB"):
        parse_size(text)


def test_available_memory_is_plausible() -> None:
    left = available_memory(torch.device("cpu"))
    assert left is not None
    assert 0 < left < 2**50


def test_errors_of_short_memory_are_recognized() -> None:
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    # Seen in a process with too little; a descriptor fails for what oneDNN cannot do at all.
    assert is_out_of_memory(RuntimeError("could not create a primitive"))
    assert is_out_of_memory(RuntimeError("std::bad_alloc"))
    assert not is_out_of_memory(RuntimeError("could not create a primitive descriptor"))


def untrained() -> DeepSeg:
    torch.manual_seed(0)
    return DeepSeg(4, 3)


def plan(budget: int, shape: tuple[int, ...] = (96, 128, 64)) -> list[str]:
    found = plan_memory(untrained(), torch.rand(1, 4, *shape), Outputs(), budget).strategies
    return [each.name if each.windows is None else str(each.windows.size) for each in found]


def test_the_fastest_strategy_that_fits_is_chosen() -> None:
    assert plan(100 * GB)[0] == "whole"
    smaller = plan(10**8)
    assert smaller[0].startswith("(")
    assert plan(1) == ["(32, 32, 32)"]


def test_windows_get_smaller() -> None:
    sizes = [each for each in plan(100 * 10**6 + 1, (96, 128, 64)) if each.startswith("(")]
    assert sizes[-1] == "(32, 32, 32)"
    assert len(sizes) == len(set(sizes))


def test_a_classifier_never_gets_windows() -> None:
    network = nn.Sequential(
        nn.Conv3d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    strategies = plan_memory(network, torch.rand(1, 1, 64, 96, 64), Outputs(), 1).strategies
    assert all(strategy.windows is None for strategy in strategies)


def test_a_network_of_one_size_runs_on_the_whole_image() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64**3, 2))
    found = plan_memory(network, torch.rand(1, 1, 64, 64, 64), Outputs(), 10 * GB)
    assert found.strategies[0].name == "whole"
    assert found.strategies[0].bytes_needed == plan_memory(
        network, torch.rand(1, 1, 64, 64, 64), Outputs(), 10 * GB
    ).strategies[0].bytes_needed  # fmt: skip


def test_windows_explain_the_blended_output_with_a_warning() -> None:
    network, x = untrained(), torch.rand(1, 4, 64, 96, 32)
    maps = explain(network, x, ["vanilla_gradient", "grad_cam"], 1, memory="1MB")
    assert maps.memory.strategy == "windows"
    assert maps.memory.budget_bytes == 10**6
    assert "differs from the network's output for the whole image" in maps.warnings[0]
    assert maps["grad_cam"].provenance["windows"]["size"] == [32, 32, 32]
    assert not explain(network, x, "vanilla_gradient", 1, memory="64GB").warnings


def test_a_prediction_needs_less_memory_and_no_checkpointing() -> None:
    x, network = torch.rand(1, 4, 96, 128, 64), untrained()
    found = {
        gradient: plan_memory(network, x, Outputs(), 100 * GB, gradient=gradient)
        for gradient in (True, False)
    }
    with_gradient, alone = (
        found[True].strategies[0].bytes_needed,
        found[False].strategies[0].bytes_needed,
    )
    assert with_gradient is not None
    assert alone is not None
    assert alone < 0.7 * with_gradient
    tight = plan_memory(network, x, Outputs(), 1, gradient=False)
    assert {strategy.name for strategy in (*tight.strategies, *tight.rejected)} == {
        "whole",
        "windows",
    }


def test_a_prediction_from_windows_has_a_warning(study: Case, segmenter: Model) -> None:
    at_once = predict(segmenter, study)
    assert at_once.warnings == predict(segmenter, study, memory="64GB").warnings
    cut = predict(segmenter, study, memory="1MB")
    assert any("windows of 32×32×32" in warning for warning in cut.warnings)
    assert cut.labels is not None
    assert at_once.labels is not None
    assert cut.labels.shape == at_once.labels.shape
    hungry = dataclasses.replace(segmenter, network=Greedy(segmenter.network))
    stepped = predict(hungry, study)
    assert any("instead of the whole image" in warning for warning in stepped.warnings)


class Greedy(nn.Module):
    """A network that runs out of memory on anything larger than a window of 32 by 32 by 32."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        if x[0, 0].numel() > 32**3:
            torch.empty(2**60, dtype=torch.uint8)
        out: Tensor = self.inner(x)
        return out


class Hungry(nn.Module):
    """A network that runs out of memory if the image is larger than a limit."""

    def __init__(self, voxels: int) -> None:
        super().__init__()
        self.voxels = voxels
        self.inner = nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv3d(3, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        if x[0, 0].numel() > self.voxels:
            torch.empty(2**60, dtype=torch.uint8)
        out: Tensor = self.inner(x)
        return out


def test_the_next_strategy_is_used_when_memory_runs_out() -> None:
    x = torch.rand(1, 1, 64, 64, 48)
    for memory in ("64GB", None):
        maps = explain(Hungry(32 * 64 * 48), x, "vanilla_gradient", 1, memory=memory)
        assert maps.memory.strategy == "windows"
        said = [note for note in maps.warnings if "instead of the whole image at once" in note]
        assert len(said) == 1


def test_running_out_of_memory_with_all_strategies_raises_an_error() -> None:
    with pytest.raises(ModelError, match="memory ran out, at last with"):
        explain(Hungry(1), torch.rand(1, 1, 64, 64, 48), "vanilla_gradient", 1, memory="64GB")


LIMITED = """
import resource
import torch
from neuroxai.workflows.explain import explain
from neuroxai.models.deepseg import DeepSeg

torch.set_num_threads(1)
torch.manual_seed(0)
network, x = DeepSeg(4, 3), torch.rand(1, 4, 64, 96, 80)
explain(network, x[..., :32, :32, :32], "guided_backprop", 1)  # threads and libraries are there
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = held + 170 * 2**20  # the whole image needs 260 to 390 MB, windows less than 100
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
maps = explain(network, x, "guided_backprop", 1, memory="64GB")
print(maps.memory.strategy, tuple(maps["guided_backprop"].values.shape), *maps.warnings, sep="|")
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits and reads Linux' memory")
@pytest.mark.skipif(not is_supported(), reason="the limit is that of the verified kernels")
def test_a_process_with_a_memory_limit_uses_windows() -> None:
    # The limit is on addresses: without this a thread would claim them by the hundred megabytes.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, check=False,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    strategy, shape, warning = done.stdout.strip().split("|")
    assert (strategy, shape) == ("windows", "(1, 4, 64, 96, 80)")
    assert "instead of the whole image at once" in warning


def test_memory_is_measured_on_a_smaller_part_if_it_runs_out() -> None:
    network, x = Hungry(32**3), torch.rand(1, 1, 160, 128, 96)
    strategies = plan_memory(network, x, Outputs(), 1).strategies
    assert [strategy.name for strategy in strategies] == ["windows"]
    assert strategies[0].bytes_needed is not None
    roomy = plan_memory(Hungry(10**9), x, Outputs(), 1).strategies[0].bytes_needed
    assert strategies[0].bytes_needed == pytest.approx(roomy, rel=0.05)


def test_the_command_prints_the_memory_of_a_pass(tmp_path: Path) -> None:
    folder = cases.write_study(tmp_path)
    out = tmp_path / "out"
    done = CliRunner().invoke(
        app,
        ["explain", str(folder), "--method", "vanilla_gradient", "--target", "WT", "--memory",
         "64GB", "-o", str(out)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "Memory of a pass: not measured (whole), 64.0 GB allowed" in done.output
    memory = json.loads((out / "summary.json").read_text())["targets"]["WT"]["memory"]
    assert memory == {"strategy": "whole", "expected_mb": None, "budget_mb": 64_000}


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 4, 3, padding=1)
        self.skip = torch.zeros(0)

    def forward(self, x: Tensor) -> Tensor:
        self.skip = self.first(x).relu()
        out: Tensor = self.second(nn.functional.max_pool3d(self.skip, 2)).relu()
        return out


class Decoder(nn.Module):
    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(8, 4, 3, padding=1), nn.Conv3d(4, 4, 3, padding=1)
        self._read: Callable[[], Tensor] = lambda: encoder.skip

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.interpolate(x, scale_factor=2.0)
        out: Tensor = self.second(self.first(torch.cat([x, self._read()], 1)).relu()).relu()
        return out


class SkipsByAttribute(nn.Module):
    """A block reads an attribute of another block, as in U-Nets built on hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder(self.encoder)
        self.more = nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Conv3d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.more(self.decoder(self.encoder(x))))
        return out


class AddsInPlace(nn.Module):
    """The input of a block is overwritten after it, or by the block itself if ``at_once``."""

    def __init__(self, at_once: bool) -> None:
        super().__init__()
        self.enter, self.head = nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 2, 1)
        self.units = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(inplace=at_once), nn.Conv3d(4, 4, 3, padding=1), nn.Tanh(),
                nn.Conv3d(4, 4, 3, padding=1),
            )
            for _ in range(3)
        )  # fmt: skip
        self.at_once = at_once

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for unit in self.units:
            if self.at_once:
                x = x + unit(x)
            else:
                x += unit(x)
        out: Tensor = self.head(x)
        return out


@pytest.mark.parametrize(
    ("build", "sound"),
    [
        (SkipsByAttribute, False),
        (lambda: AddsInPlace(at_once=True), False),
        (lambda: AddsInPlace(at_once=False), True),
    ],
    ids=["skips by attribute", "a block writes over its input", "its input is written over"],
)
def test_blocks_are_checkpointed_only_if_that_changes_no_result(
    build: Callable[[], nn.Module], sound: bool
) -> None:
    """A gradient that reaches a block by another path than its input would be lost."""
    torch.manual_seed(0)
    network, x = build().eval(), torch.rand(1, 1, 32, 40, 72)
    plan = plan_memory(network, x, Outputs(), 1)
    (lean,) = (strategy for strategy in plan.rejected if strategy.name == "checkpointed")
    expected = "checkpointed" if sound else "windows"
    names = ["vanilla_gradient", "guided_backprop"]
    whole = explain(network, x, names, 1)
    allowed = explain(network, x, names, 1, memory=lean.bytes_needed)
    with short_of_memory():
        short = explain(network, x, names, 1)
    for found in (allowed, short):
        assert found.memory.strategy == expected
        for name in names if sound else ():
            assert relative(found[name].values, whole[name].values) <= 1e-5


@contextmanager
def short_of_memory() -> Iterator[None]:
    """Let memory run out unexpectedly on the whole image."""
    probe_of = MemoryPlanner.probe

    def fails(planner: MemoryPlanner, strategy: Strategy, *arguments: Any) -> Any:
        if strategy.name == "whole":
            raise MemoryError
        return probe_of(planner, strategy, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryPlanner, "probe", fails)
        yield


@pytest.mark.parametrize("name", ["integrated_gradients", "smoothgrad"])
def test_a_batch_is_limited_by_the_memory_budget(name: str) -> None:
    network, x = DeepSeg(4, 3, filters=2), torch.rand(1, 4, 32, 64, 32)
    needs = plan_memory(network, x, Outputs(), 1).rejected[0].bytes_needed
    assert needs is not None
    method = make_method(name, {"samples" if name == "smoothgrad" else "steps": 6})
    seen: list[int] = []
    handle = network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    maps = {}
    for allowed, most in ((int(1.5 * needs), 1), (int(3.5 * needs), 3), (20 * needs, 6)):
        seen.clear()
        found = explain(network, x, method, 1, memory=allowed)
        assert found.memory.strategy == "whole"
        assert max(seen) <= most
        assert (max(seen) > 1) == (most > 1)
        maps[most] = found[name].values
    handle.remove()
    assert relative(maps[1], maps[6]) <= 1e-4


_KEPT = """
import sys, torch
from pathlib import Path
from neuroxai.core.engine.allocator import tune_allocator
from neuroxai.core.probe.memory_plan import MemoryPlanner
from neuroxai.core.target.outputs import Outputs

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

tune_allocator()
MemoryPlanner(torch.nn.Identity(), torch.rand(1, 2, 32, 24, 40), Outputs(), eval(sys.argv[1]))
before = resident()
tensors = [torch.ones(2, 1000, 1100) for _ in range(40)]  # 8.8 MB each
del tensors
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="settings of glibc")
@pytest.mark.parametrize(("budget", "kept"), [("10**6", False), ("None", True), ("10**10", True)])
def test_a_tight_budget_returns_freed_memory(budget: str, kept: bool) -> None:
    """Of 350 MB that were freed; in a separate process, because the settings are permanent."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("settings of glibc")
    done = subprocess.run(
        [sys.executable, "-c", _KEPT, budget], capture_output=True, text=True, check=True
    )
    assert (float(done.stdout) > 100) is kept
