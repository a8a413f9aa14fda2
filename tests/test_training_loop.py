"""The loop: schedule, running average, log, and a killed run that ends as if it had not been."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from neuroxai.core.errors import TrainingError
from neuroxai.training.config import Config, DataSource, PhantomSource

loop = pytest.importorskip("neuroxai.training.loop")

CONFIG = Config(
    name="n",
    task="classification",
    architecture="resnet50",
    modalities=("FLAIR",),
    preprocessing={"modalities": ["FLAIR"]},
    data=DataSource(phantom=PhantomSource((0, 1), (1, 2))),
    classes=("LGG", "HGG"),
    max_steps=30,
    average=0.9,
    save_every=10,
    device="cpu",
)


class _Batches(IterableDataset[tuple[Tensor, Tensor]]):
    """Batch n is a function of n; may raise at one of them, as a power cut would."""

    def __init__(self, start: int = 0, broken_at: int | None = None) -> None:
        self.start, self.broken_at = start, broken_at

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        number = self.start
        while True:
            if number == self.broken_at:
                raise OSError("the light went out")
            generator = torch.Generator().manual_seed(number)
            x = torch.randn(5, 3, generator=generator)
            yield x, (x[:, 0] > 0).long()
            number += 1


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2)
    )


def _fit(out: Path, config: Config = CONFIG, batches: _Batches | None = None) -> nn.Module:
    out.mkdir(exist_ok=True)
    trained = loop.fit(
        _network(),
        batches or _Batches(loop.last_step(out)),
        nn.CrossEntropyLoss(),
        config,
        out,
        steps=config.max_steps,
        report=lambda *_: None,
    )
    assert isinstance(trained.network, nn.Module)
    return trained.network


def test_a_killed_run_resumes_and_ends_bit_for_bit_as_an_unbroken_one(tmp_path: Path) -> None:
    unbroken = _fit(tmp_path / "a").state_dict()
    with pytest.raises(OSError, match="light"):
        _fit(tmp_path / "b", batches=_Batches(broken_at=27))
    assert loop.last_step(tmp_path / "b") == 20
    torch.manual_seed(12345)
    resumed = _fit(tmp_path / "b").state_dict()
    for name, value in unbroken.items():
        assert torch.equal(resumed[name], value), name
    with (tmp_path / "b" / "log.csv").open() as one, (tmp_path / "a" / "log.csv").open() as two:
        rows = [[row["step"], row["loss"]] for row in csv.DictReader(one)]
        assert rows == [[row["step"], row["loss"]] for row in csv.DictReader(two)]
    assert [row[0] for row in rows] == ["20", "30"]


def test_the_average_is_kept_and_forgets(tmp_path: Path) -> None:
    """Against the recursion, from the weights after each step."""
    config = dataclasses.replace(CONFIG, max_steps=4, average=0.9)
    kept = _fit(tmp_path / "kept", config).state_dict()
    each = []
    for steps in range(1, 5):
        # A constant rate, so that a shorter run is the beginning of the longer one.
        plain = dataclasses.replace(
            config, average=0.0, max_steps=steps, schedule="constant", warmup=0.0
        )
        each.append(_fit(tmp_path / str(steps), plain).state_dict())
    constant = dataclasses.replace(config, schedule="constant", warmup=0.0)
    kept = _fit(tmp_path / "constant", constant).state_dict()
    for name, start in _network().state_dict().items():
        expected = start.double()
        for step, state in enumerate(each, start=1):
            decay = min(0.9, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * state[name].double()
        if start.is_floating_point():
            torch.testing.assert_close(kept[name].double(), expected, rtol=1e-5, atol=1e-6)
        else:
            assert int(kept[name]) == 4


def test_the_learning_rate_rises_and_falls() -> None:
    config = dataclasses.replace(CONFIG, learning_rate=2.0, warmup=0.1)
    assert loop.learning_rate(0.05, config) == pytest.approx(1.0)
    assert loop.learning_rate(0.1, config) == pytest.approx(2.0)
    assert loop.learning_rate(0.55, config) == pytest.approx(1.0)
    assert loop.learning_rate(1.0, config) == pytest.approx(0.0, abs=1e-12)
    poly = dataclasses.replace(config, schedule="poly")
    assert loop.learning_rate(0.55, poly) == pytest.approx(2 * 0.5**0.9)
    plateau = dataclasses.replace(config, schedule="plateau", warmup=0.0)
    assert [loop.learning_rate(spent, plateau) for spent in (0.5, 0.7, 1.0)] == [2.0, 2.0, 0.0]
    assert loop.learning_rate(0.85, plateau) == pytest.approx(1.0)
    assert loop.learning_rate(1.0, dataclasses.replace(config, schedule="constant")) == 2.0
    assert loop.learning_rate(0.0, dataclasses.replace(config, warmup=0.0)) == 2.0


def test_the_budget_is_what_comes_first() -> None:
    budget = loop.Budget(10, 60.0)
    assert budget.spent(5, 6.0) == 0.5
    assert budget.spent(5, 54.0) == 0.9
    assert budget.spent(11, 0.0) == 1.0
    assert loop.Budget(None, 60.0).spent(999, 30.0) == 0.5


def test_minutes_end_a_run(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, max_steps=None, max_minutes=1 / 60)
    tmp_path.joinpath("a").mkdir()
    trained = loop.fit(
        _network(),
        _Batches(),
        nn.CrossEntropyLoss(),
        config,
        tmp_path / "a",
        steps=None,
        report=lambda *_: None,
    )
    assert trained.steps > 0
    assert trained.seconds >= 1
    rows = list(csv.DictReader((tmp_path / "a" / "log.csv").read_text().splitlines()))
    assert float(rows[-1]["learning_rate"]) < CONFIG.learning_rate
    assert int(rows[-1]["step"]) == trained.steps


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    class Infinite(nn.Module):
        def forward(self, logits: Tensor, truth: Tensor) -> Tensor:
            return logits.sum() * math.inf

    with pytest.raises(TrainingError, match="lower learning_rate"):
        loop.fit(
            _network(), _Batches(), Infinite(), CONFIG, tmp_path, steps=30, report=lambda *_: None
        )


def test_a_damaged_or_foreign_last_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match=r"last\.ckpt: cannot be resumed from"):
        loop.last_step(tmp_path)


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, float, float]] = []
    loop.fit(
        _network(),
        _Batches(),
        nn.CrossEntropyLoss(),
        dataclasses.replace(CONFIG, max_steps=3),
        tmp_path,
        steps=3,
        report=lambda *what: told.append(what),
    )
    assert told == [("Training", 1, 3), ("Training", 2, 3), ("Training", 3, 3)]


def test_a_gpu_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(TrainingError, match="no GPU"):
        loop.pick_device(dataclasses.replace(CONFIG, device="cuda"))
