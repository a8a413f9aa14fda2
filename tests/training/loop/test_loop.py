"""Training loop: schedule, moving average, log, validation, and bit-exact resumption."""

from __future__ import annotations

import csv
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from neuroxai.core.errors import TrainingError
from neuroxai.data.preprocessing import Preprocessing
from neuroxai.training.config.config import Config
from neuroxai.training.config.sources import DataSource, PhantomSource
from neuroxai.training.loop.best_checkpoint import BestCheckpoint
from neuroxai.training.loop.schedule import Budget, learning_rate

loop = pytest.importorskip("neuroxai.training.loop.loop")

CONFIG = Config(
    name="n",
    task="classification",
    architecture="resnet50",
    modalities=("FLAIR",),
    preprocessing=Preprocessing(modalities=("FLAIR",)),
    data=DataSource(phantom=PhantomSource(train=(0, 1), test=(1, 2), validation=(2, 3))),
    classes=("LGG", "HGG"),
    max_steps=30,
    average=0.9,
    save_every=10,
    device="cpu",
)


class _Batches:
    """Batch n is a function of n; batch ``broken_at`` raises, to interrupt the training."""

    def __init__(self, broken_at: int | None = None) -> None:
        self.broken_at = broken_at

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        if number == self.broken_at:
            raise OSError("interrupted")
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(5, 3, generator=generator)
        return x, (x[:, 0] > 0).long()


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2)
    )


def _fit(
    out: Path,
    config: Config = CONFIG,
    batches: _Batches | None = None,
    *,
    best: BestCheckpoint | None = None,
    frozen_steps: int = 0,
) -> nn.Module:
    out.mkdir(exist_ok=True)
    trained = loop.fit(
        _network(),
        batches or _Batches(),
        nn.CrossEntropyLoss(),
        config,
        out,
        length=loop.Length(config.max_steps, frozen_steps),
        best_checkpoint=best,
        report=lambda *_: None,
    )
    assert isinstance(trained.network, nn.Module)
    return trained.network


def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    unbroken = _fit(tmp_path / "a").state_dict()
    with pytest.raises(OSError, match="interrupted"):
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


def test_the_moving_average_equals_its_recursion(tmp_path: Path) -> None:
    """From the weights after each step, trained separately."""
    config = CONFIG.replace(max_steps=4, average=0.9)
    kept = _fit(tmp_path / "kept", config).state_dict()
    each = []
    for steps in range(1, 5):
        # With a constant learning rate, a shorter training is the beginning of a longer one.
        plain = config.replace(average=0.0, max_steps=steps, schedule="constant", warmup=0.0)
        each.append(_fit(tmp_path / str(steps), plain).state_dict())
    constant = config.replace(schedule="constant", warmup=0.0)
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


def test_learning_rate_schedules() -> None:
    config = CONFIG.replace(learning_rate=2.0, warmup=0.1)
    assert learning_rate(0.05, config) == pytest.approx(1.0)
    assert learning_rate(0.1, config) == pytest.approx(2.0)
    assert learning_rate(0.55, config) == pytest.approx(1.0)
    assert learning_rate(1.0, config) == pytest.approx(0.0, abs=1e-12)
    poly = config.replace(schedule="poly")
    assert learning_rate(0.55, poly) == pytest.approx(2 * 0.5**0.9)
    plateau = config.replace(schedule="plateau", warmup=0.0)
    assert [learning_rate(spent, plateau) for spent in (0.5, 0.7, 1.0)] == [2.0, 2.0, 0.0]
    assert learning_rate(0.85, plateau) == pytest.approx(1.0)
    assert learning_rate(1.0, config.replace(schedule="constant")) == 2.0
    assert learning_rate(0.0, config.replace(warmup=0.0)) == 2.0


def test_the_budget_ends_at_the_first_limit() -> None:
    budget = Budget(10, 60.0)
    assert budget.progress(5, 6.0) == 0.5
    assert budget.progress(5, 54.0) == 0.9
    assert budget.progress(11, 0.0) == 1.0
    assert Budget(None, 60.0).progress(999, 30.0) == 0.5


def test_a_training_ends_after_max_minutes(tmp_path: Path) -> None:
    config = CONFIG.replace(max_steps=None, max_minutes=1 / 60)
    tmp_path.joinpath("a").mkdir()
    trained = loop.fit(
        _network(),
        _Batches(),
        nn.CrossEntropyLoss(),
        config,
        tmp_path / "a",
        length=loop.Length(None),
        report=lambda *_: None,
    )
    assert trained.steps > 0
    assert trained.seconds >= 1
    rows = list(csv.DictReader((tmp_path / "a" / "log.csv").read_text().splitlines()))
    assert float(rows[-1]["learning_rate"]) < CONFIG.learning_rate
    assert int(rows[-1]["step"]) == trained.steps


def test_an_infinite_loss_raises_an_error(tmp_path: Path) -> None:
    class Infinite(nn.Module):
        def forward(self, logits: Tensor, truth: Tensor) -> Tensor:
            return logits.sum() * math.inf

    with pytest.raises(TrainingError, match=r"training loss is .* lower learning_rate"):
        loop.fit(
            _network(),
            _Batches(),
            Infinite(),
            CONFIG,
            tmp_path,
            length=loop.Length(30),
            report=lambda *_: None,
        )


def test_a_damaged_or_outdated_resume_state_raises_an_error(tmp_path: Path) -> None:
    last = tmp_path / "last.ckpt"
    torch.save({"global_step": 3, "losses": {}}, last)
    assert loop.last_step(tmp_path) == 3
    whole = last.read_bytes()
    for damaged in (b"", b"nonsense", whole[:100], whole[:-100]):
        last.write_bytes(damaged)
        with pytest.raises(TrainingError, match=r"last\.ckpt: not a resumable state \(\w+\)"):
            loop.last_step(tmp_path)
    torch.save({"global_step": 3}, last)
    with pytest.raises(TrainingError, match="of this version"):
        loop.last_step(tmp_path)


def test_progress_is_reported_at_every_step(tmp_path: Path) -> None:
    reported: list[tuple[str, float, float]] = []
    loop.fit(
        _network(),
        _Batches(),
        nn.CrossEntropyLoss(),
        CONFIG.replace(max_steps=3),
        tmp_path,
        length=loop.Length(3),
        report=lambda *what: reported.append(what),
    )
    assert reported == [("Training", 1, 3), ("Training", 2, 3), ("Training", 3, 3)]


def test_a_missing_gpu_raises_an_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("PyTorch sees a GPU")
    with pytest.raises(TrainingError, match="no GPU"):
        loop.pick_device(CONFIG.replace(device="cuda"))


def _plain() -> nn.Module:
    """Network without dropout and batch norm: its gradients are sums over samples."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))


class _Double(_Batches):
    """Two consecutive batches as one."""

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        pairs = [super(_Double, self).batch(2 * number + i) for i in (0, 1)]
        return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])


def _fit_plain(out: Path, batches: _Batches, **changes: object) -> dict[str, Tensor]:
    out.mkdir()
    trained = loop.fit(
        _plain(),
        batches,
        nn.CrossEntropyLoss(),
        CONFIG.replace(max_steps=12, average=0.0, clip=1e9, **changes),
        out,
        length=loop.Length(12),
        report=lambda *_: None,
    )
    assert trained.steps == 12
    state: dict[str, Tensor] = trained.network.state_dict()
    return state


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_accumulated_batches_equal_one_large_batch(tmp_path: Path, optimizer: str) -> None:
    whole = _fit_plain(tmp_path / "whole", _Double(), optimizer=optimizer)
    parts = _fit_plain(tmp_path / "parts", _Batches(), accumulate=2, optimizer=optimizer)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-6)


def test_the_logged_loss_does_not_depend_on_accumulation(tmp_path: Path) -> None:
    logged = []
    for accumulate in (1, 3):
        config = CONFIG.replace(accumulate=accumulate, learning_rate=1e-12)
        _fit(tmp_path / str(accumulate), config)
        with (tmp_path / str(accumulate) / "log.csv").open(newline="") as stream:
            logged.append([float(row["loss"]) for row in csv.DictReader(stream)][-1])
    assert logged[1] == pytest.approx(logged[0], rel=0.3)


def test_a_training_with_accumulated_batches_resumes_bit_for_bit(tmp_path: Path) -> None:
    config = CONFIG.replace(accumulate=3, max_steps=8, save_every=2)
    unbroken = _fit(tmp_path / "a", config).state_dict()
    with pytest.raises(OSError, match="interrupted"):
        _fit(tmp_path / "b", config, _Batches(broken_at=17))
    assert loop.last_step(tmp_path / "b") == 4
    # Interrupted again within the first step after resuming.
    with pytest.raises(OSError, match="interrupted"):
        _fit(tmp_path / "b", config, _Batches(broken_at=14))
    resumed = _fit(tmp_path / "b", config).state_dict()
    for name, value in unbroken.items():
        assert torch.equal(resumed[name], value), name


def _loss_of(out: Path, batches: _Batches | None = None) -> tuple[float, list[str]]:
    """Train 24 steps of two batches; return the loss of the result and those of the log."""
    out.mkdir(exist_ok=True)
    trained = loop.fit(
        _network(),
        batches or _Batches(),
        nn.CrossEntropyLoss(),
        CONFIG.replace(accumulate=2, max_steps=24, save_every=3),
        out,
        length=loop.Length(24),
        report=lambda *_: None,
    )
    rows = csv.DictReader((out / "log.csv").read_text().splitlines())
    return trained.loss, [row["loss"] for row in rows]


def test_a_resumed_training_reports_the_loss_of_an_uninterrupted_one(tmp_path: Path) -> None:
    """Including the steps since the last row of the log, and earlier rows."""
    whole = _loss_of(tmp_path / "whole")
    assert len(whole[1]) == 2, "after step 20 and after the last step"
    for broken_at in (7, 19, 41, 46):
        out = tmp_path / str(broken_at)
        with pytest.raises(OSError, match="interrupted"):
            _loss_of(out, _Batches(broken_at))
        assert _loss_of(out) == whole, broken_at


def test_a_resumed_training_continues_its_clock(tmp_path: Path) -> None:
    config = CONFIG.replace(save_every=5)
    with pytest.raises(OSError, match="interrupted"):
        _fit(tmp_path, config, _Batches(broken_at=27))
    last = tmp_path / "last.ckpt"
    state = torch.load(last, weights_only=True)
    state["callbacks"]["Timer"]["time_elapsed"]["train"] += 1000
    torch.save(state, last)
    _fit(tmp_path, config)
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert float(rows[0]["seconds"]) < 1000 < float(rows[-1]["seconds"])


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port


def test_two_processes_equal_two_accumulated_batches(tmp_path: Path) -> None:
    """Distributed training on the CPU with gloo."""
    parts = _fit_plain(tmp_path / "parts", _Batches(), accumulate=2)
    out = tmp_path / "together"
    out.mkdir()
    script = tmp_path / "together.py"
    # Forked after the imports, which take most of the time. Lightning starts no processes if
    # LOCAL_RANK is set; how it starts them is tested from the command line.
    script.write_text(
        "import dataclasses, os, sys\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_loop as t\n"
        "other = os.fork()\n"
        "os.environ['LOCAL_RANK'] = '0' if other else '1'\n"
        "trained = t.loop.fit(\n"
        "    t._plain(), t._Batches(), t.nn.CrossEntropyLoss(),\n"
        "    t.CONFIG.replace(max_steps=12, average=0.0, clip=1e9, devices=2),\n"
        f"    Path({str(out)!r}), length=t.loop.Length(12), report=lambda *_: None)\n"
        "if other:\n"
        "    assert os.waitpid(other, 0)[1] == 0, 'the other process failed'\n"
        f"    t.torch.save(trained.network.state_dict(), {str(out / 'weights.pt')!r})\n"
    )
    environment = {key: value for key, value in os.environ.items() if "PYTEST" not in key}
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment | {"OMP_NUM_THREADS": "1", "MASTER_PORT": str(_free_port())},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    together = torch.load(out / "weights.pt", weights_only=True)
    for name, value in parts.items():
        torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-6)
    steps = [row["step"] for row in csv.DictReader((out / "log.csv").read_text().splitlines())]
    assert steps == ["12"], "rank 0 alone writes"


def test_frozen_layers_do_not_change_until_unfrozen(tmp_path: Path) -> None:
    start = _network().state_dict()
    frozen = CONFIG.replace(average=0.0, max_steps=6, frozen_layers=("0", "1"))
    kept = _fit(tmp_path / "a", frozen, frozen_steps=6).state_dict()
    for name, value in kept.items():
        same = torch.equal(value, start[name])
        assert same == name.startswith(("0.", "1.")), name
    unfrozen = _fit(tmp_path / "b", frozen, frozen_steps=3).state_dict()
    assert not torch.equal(unfrozen["0.weight"], start["0.weight"])
    assert not torch.equal(unfrozen["1.running_mean"], start["1.running_mean"])
    with pytest.raises(TrainingError, match="no layer begins with 'layer9'"):
        _fit(tmp_path / "c", frozen.replace(frozen_layers=("layer9",)), frozen_steps=3)


def test_frozen_norms_keep_their_running_statistics(tmp_path: Path) -> None:
    start = _network().state_dict()
    frozen = CONFIG.replace(average=0.0, max_steps=6, frozen_norms=True)
    kept = _fit(tmp_path / "a", frozen).state_dict()
    for name, value in kept.items():
        is_statistic = name in ("1.running_mean", "1.running_var", "1.num_batches_tracked")
        assert torch.equal(value, start[name]) == is_statistic, name


class _Scores:
    """Prescribed validation scores; records the weights at each validation."""

    def __init__(self, *values: float) -> None:
        self.values, self.seen = list(values), []  # type: ignore[var-annotated]

    def __call__(self, network: nn.Module) -> float:
        assert not network.training
        self.seen.append({name: value.clone() for name, value in network.state_dict().items()})
        return self.values[len(self.seen) - 1]


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_the_best_weights_are_kept_and_patience_stops_training(
    tmp_path: Path, average: float
) -> None:
    scores = _Scores(0.2, 0.7, 0.6, 0.7, 0.1, 0.9)
    config = CONFIG.replace(average=average, validate_every=1, patience=3)
    kept = _fit(tmp_path / "a", config, best=BestCheckpoint(scores, 4, 3)).state_dict()
    assert len(scores.seen) == 5, "three validations without improvement"
    for name, value in scores.seen[1].items():
        assert torch.equal(kept[name], value), name
    rows = list(csv.DictReader((tmp_path / "a" / "validation.csv").read_text().splitlines()))
    assert [(row["step"], float(row["score"])) for row in rows] == [
        ("4", 0.2), ("8", 0.7), ("12", 0.6), ("16", 0.7), ("20", 0.1),
    ]  # fmt: skip


def test_validation_does_not_change_the_training(tmp_path: Path) -> None:
    plain = CONFIG.replace(average=0.0)
    unvalidated = _fit(tmp_path / "a", plain).state_dict()
    rising = _Scores(*range(99))
    validated = _fit(tmp_path / "b", plain, best=BestCheckpoint(rising, 7, None)).state_dict()
    for name, value in unvalidated.items():
        assert torch.equal(validated[name], value), name
    assert len(rising.seen) == 5, "after steps 7, 14, 21, 28 and the last one"


def test_a_resumed_training_keeps_the_best_weights_from_before(tmp_path: Path) -> None:
    config = CONFIG.replace(average=0.0)
    scores = _Scores(0.9, 0.3, 0.4, 0.5, 0.6, 0.7)
    with pytest.raises(OSError, match="interrupted"):
        _fit(tmp_path / "a", config, _Batches(broken_at=13), best=BestCheckpoint(scores, 5, None))
    first = scores.seen[0]
    kept = _fit(tmp_path / "a", config, best=BestCheckpoint(scores, 5, None)).state_dict()
    for name, value in first.items():
        assert torch.equal(kept[name], value), name


def test_tensorboard_has_the_losses_of_the_log(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _fit(tmp_path / "a", CONFIG.replace(tensorboard=True, max_steps=40))
    events = accumulator.EventAccumulator(str(tmp_path / "a" / "tensorboard"))
    events.Reload()
    rows = list(csv.DictReader((tmp_path / "a" / "log.csv").read_text().splitlines()))
    logged = {event.step: event.value for event in events.Scalars("loss")}
    assert logged == {int(row["step"]): pytest.approx(float(row["loss"]), abs=1e-4) for row in rows}


def test_precision_16_requires_a_gpu() -> None:
    with pytest.raises(TrainingError, match="precision 16 requires a GPU"):
        loop.pick_device(CONFIG.replace(precision="16"))
