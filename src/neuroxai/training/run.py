"""A training run from its configuration to a checkpoint with measured metrics."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from neuroxai.core.errors import ModelError, OutputError, TrainingError
from neuroxai.core.progress import Report
from neuroxai.files.atomic import replaced_whole
from neuroxai.models.card import Card, Postprocessing, read_card
from neuroxai.models.checkpoint import build_network, save_checkpoint
from neuroxai.models.loading import load_model
from neuroxai.training.card.evaluate import mean_dice, mean_recall
from neuroxai.training.card.logit_bias import choose_shift, shift_outputs
from neuroxai.training.card.metrics import measure
from neuroxai.training.config.config import Config
from neuroxai.training.config.config_file import read_config
from neuroxai.training.config.network_check import check_network, check_recipe
from neuroxai.training.data.cases import Gathered, Prepared, gather
from neuroxai.training.data.split import Member, read_split, write_split
from neuroxai.training.loop.best_checkpoint import BestCheckpoint
from neuroxai.training.loop.losses import HintedCrossEntropy, RegionDiceCrossEntropy
from neuroxai.training.loop.pretrained import load_pretrained
from neuroxai.training.loop.rank import rank

if TYPE_CHECKING:
    from neuroxai.training.data.prefetch import Numbered
    from neuroxai.training.loop.loop import Length

CHECKPOINT = "checkpoint"
SPLIT = "split.csv"
_CONFIG = "config.json"


def train(
    config: Config | str | Path,
    out: str | Path,
    *,
    data: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    progress: Report | None = None,
) -> Path:
    """Train a network and return its checkpoint folder, ``out/checkpoint``.

    Beside it lie ``config.json``, ``log.csv`` (the loss), ``metrics.csv`` (each held-out case) and,
    until the end, ``last.ckpt``. The metrics in the card are measured on the held-out cases with
    the very weights that were written.

    Parameters
    ----------
    config
        A configuration, its YAML file, or the name of one of the package's own:
        ``phantom-segmentation``, ``phantom-grading``.
    out
        Folder of the run.
    data
        A cohort folder in any supported layout, in place of the configuration's data source.
    overrides
        Texts ``key=value``, as ``--set`` takes them.
    resume
        Take up the run in ``out``; one that has ended is returned as it is.
    progress
        Called with a stage, how much of it is done, and how much there is.

    Returns
    -------
    Path
        The checkpoint folder. With ``devices`` above 1 every process gets here, and only the one
        that leads has written it by then.

    Raises
    ------
    TrainingError
        If the configuration cannot be run, or ``out`` holds a run and ``resume`` is false, or the
        run there had other settings.
    """
    if not isinstance(config, Config):
        config = read_config(config, overrides=overrides, data=data)
    elif overrides or data is not None:
        raise TrainingError("train: overrides and data belong to a configuration file, not to both")
    check_recipe(config)
    from_nothing = config.initial is None and config.pretrained is None
    if config.frozen_epochs and from_nothing:
        raise TrainingError(
            "frozen_epochs is set, but the network starts from nothing, so the layers at rest "
            "would stay noise; set pretrained to a weight file, or frozen_epochs=0"
        )
    if config.frozen_norms and from_nothing:
        raise TrainingError(
            "frozen_norms is set, but the network starts from nothing, so its norms know no "
            "statistics; set initial to a checkpoint folder, or frozen_norms=false"
        )
    report = progress or _silent
    out = Path(out)
    # Of several processes that train together each runs this; the first alone writes.
    leads = rank() == 0
    finished = _enter(out, config, resume=resume) if leads else None
    if finished is not None:
        return finished

    from neuroxai.training.loop.loop import LAST, fit, pick_device

    device = pick_device(config)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(config.seed)
        # Before any case is made ready, which may take an hour: what fails here fails at once.
        network, ancestor = _network(config)
        check_network(network, config)
        loss = _loss(network, config)
    began = time.monotonic()
    cases = gather(config, report=report)
    prepared_after = time.monotonic() - began
    if leads:
        _claim(out, config)
        if cases.split:
            if resume and (out / SPLIT).is_file():
                _same_parts(read_split(out / SPLIT), cases.split, out / SPLIT)
            write_split(cases.split, out / SPLIT)
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(config.seed)
        batches = _batches(config, cases.train, device)
        best = _best_checkpoint(config, cases, device)
        length = _length(config, cases.train)
        trained = fit(
            network, batches, loss, config, out, length=length, best_checkpoint=best, report=report
        )
        if isinstance(loss, HintedCrossEntropy):
            loss.close()
    if not leads:
        return out / CHECKPOINT

    shift = _shifted(trained.network, config, cases, device, report)
    training = {
        "data": _describe_data(config, cases),
        "steps": trained.steps,
        "loss": round(trained.loss, 5),
        "waiting_for_data": round(trained.waiting, 4),
        **(
            {"best": dict(zip(("step", "validation"), trained.best, strict=True))}
            if trained.best
            else {}
        ),
        "device": device.type,
        "seconds": {"preparing": round(prepared_after, 1), "training": round(trained.seconds, 1)},
        "config": _settings(config),
        **({"logit_bias": shift} if shift else {}),
        **({"initial": ancestor} if ancestor else {}),
    }
    card = _card(config, training)
    with tempfile.TemporaryDirectory() as scratch:
        # Measured on what a user will load, its rounding to float16 included.
        model = load_model(
            save_checkpoint(
                Path(scratch) / CHECKPOINT, trained.network, card, dtype=config.output_dtype
            )
        )
    metrics = measure(model, config, cases.test, device, out, report)
    folder = save_checkpoint(
        out / CHECKPOINT,
        trained.network,
        card.replace(metrics=metrics),
        dtype=config.output_dtype,
    )
    if not config.keep_last:
        (out / LAST).unlink(missing_ok=True)
    return folder


def _network(config: Config) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network to train, and what is known of the weights it starts from."""
    if config.initial is None:
        network = build_network(config.architecture, config.arguments, source="configuration")
        if config.pretrained is None:
            return network, {}
        sha256 = load_pretrained(network, config.pretrained)
        return network, {"weights": Path(config.pretrained).name, "weights_sha256": sha256}
    model = load_model(config.initial)
    same = (model.card.architecture, _shape(model.card.arguments)) == (
        config.architecture,
        _shape(config.arguments),
    )
    if not same or (model.card.classes, model.card.modalities) != (
        config.classes,
        config.modalities,
    ):
        raise TrainingError(
            f"initial: {config.initial} is another network (architecture, arguments, classes or "
            "modalities differ); start from one that is the same"
        )
    network = build_network(config.architecture, config.arguments, source="configuration")
    network.load_state_dict(model.network.state_dict())
    return network, {
        "weights_sha256": model.weights_sha256,
        "training": dict(model.card.training),
    }


def _shape(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return an architecture's arguments without dropout, which no weight depends on."""
    return {name: value for name, value in arguments.items() if name != "dropout"}


def _shifted(
    network: nn.Module, config: Config, cases: Gathered, device: torch.device, report: Report
) -> dict[str, float]:
    """Set the outputs' levels on the validation cases, if asked; return by how much."""
    if not config.logit_bias:
        return {}
    shift = choose_shift(network, cases.validation, config, device, report)
    shift_outputs(network, shift)
    return dict(zip(config.classes, shift, strict=True))


def _silent(stage: str, done: float, total: float) -> None:
    pass


def _enter(out: Path, config: Config, *, resume: bool) -> Path | None:
    """Check that ``out`` is free or this run's; return the checkpoint of a run that has ended."""
    settings = out / _CONFIG
    if settings.is_file():
        if not resume:
            raise TrainingError(f"{out}: holds a training run; resume it or choose another folder")
        try:
            earlier = json.loads(settings.read_text(encoding="utf-8"))["digest"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{settings}: cannot be read, choose another folder") from error
        if earlier != config.digest():
            raise TrainingError(
                f"{out}: its run had other settings than these (see {settings.name} there); "
                "resume with the same or choose another folder"
            )
        folder = out / CHECKPOINT
        try:
            read_card(folder / "card.json")
        except ModelError:
            return None
        return folder
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: exists and is no training run; choose another folder")
    return None


def _claim(out: Path, config: Config) -> None:
    """Leave the settings in ``out``; from then on it is this run's folder."""
    with replaced_whole(out / _CONFIG) as temporary:
        table = {"digest": config.digest(), **_settings(config)}
        temporary.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def _loss(network: nn.Module, config: Config) -> nn.Module:
    """Return the loss of the task; layers that the configuration names must be there."""
    from neuroxai.training.loop.training_module import frozen_layers

    frozen_layers(network, config)
    if config.task == "segmentation":
        return RegionDiceCrossEntropy(config.classes, config.regions, weights=config.class_weights)
    return HintedCrossEntropy(
        network,
        config.auxiliary_loss_layers,
        weight=config.auxiliary_loss,
        channels=len(config.modalities),
    )


def _batches(config: Config, cases: Sequence[Prepared], device: torch.device) -> Numbered:
    """Return the batches of the task."""
    from neuroxai.training.data.patches import PatchBatches
    from neuroxai.training.data.slices import SliceBatches

    if config.task == "classification":
        return SliceBatches(cases, config, device)
    return PatchBatches(cases, config, device)


def _per_epoch(config: Config, cases: Sequence[Prepared]) -> int:
    """Return the steps of an epoch: one patch of every case, or each of their slices."""
    samples = sum(len(case.truth) for case in cases) if config.task == "classification" else 0
    return -(-(samples or len(cases)) // (config.batch * config.accumulate * config.devices))


def _length(config: Config, cases: Sequence[Prepared]) -> Length:
    from neuroxai.training.loop.loop import Length

    per_epoch = _per_epoch(config, cases)
    counts = [config.max_steps, config.epochs and config.epochs * per_epoch]
    steps = min((count for count in counts if count), default=None)
    return Length(steps, round(config.frozen_epochs * per_epoch))


def _best_checkpoint(
    config: Config, cases: Gathered, device: torch.device
) -> BestCheckpoint | None:
    """Set up validation by mean Dice over regions or mean recall over classes, if configured."""
    for asked, key in (
        (config.validate_every is not None, "validate_every"),
        (config.logit_bias, "logit_bias"),
    ):
        if asked and not cases.validation:
            raise TrainingError(f"{key} is set, but no case was left for the validation")
    if config.validate_every is None:
        return None
    to_name = {"segmentation": mean_dice, "classification": mean_recall}
    measure = to_name[config.task]
    every = max(1, round(config.validate_every * _per_epoch(config, cases.train)))

    def score(network: nn.Module) -> float:
        with torch.no_grad():
            return measure(network, cases.validation, config, device)

    return BestCheckpoint(score, every, config.patience)


def _settings(config: Config) -> dict[str, Any]:
    """Return the configuration without what belongs to one machine."""
    table = config.to_dict()
    for key in ("cache", "workers", "device", "tensorboard"):
        del table[key]
    cohort = table["data"]["cohort"] or table["data"]["pictures"] or {}
    for holder, key in (
        (table, "initial"),
        (table, "pretrained"),
        (cohort, "folder"),
        (cohort, "split"),
    ):
        if holder.get(key) is not None:
            holder[key] = Path(holder[key]).name
    return table


def _describe_data(config: Config, cases: Gathered) -> dict[str, Any]:
    counts = {"train_cases": len(cases.train), "held_out_cases": len(cases.test)}
    if cases.validation:
        counts["validation_cases"] = len(cases.validation)
    if config.data.phantom is not None:
        source = config.data.phantom
        return {
            "source": "synthetic phantoms on MNI152 anatomy",
            "train_seeds": list(source.train),
            "held_out_seeds": list(source.test),
            **({"validation_seeds": list(source.validation)} if source.validation else {}),
            "spacings_mm": list(source.spacings),
            "variant": source.variant,
            "wide": source.wide,
            **counts,
        }
    if config.data.pictures is not None:
        note = "pictures carry no patient: a random split may have a patient on both sides"
        return {"source": Path(config.data.pictures.folder).name, "note": note, **counts}
    folder = config.data.cohort.folder if config.data.cohort else ""
    return {"source": Path(folder).name, **counts}


def _card(config: Config, training: dict[str, Any]) -> Card:
    return Card(
        name=config.name,
        architecture=config.architecture,
        arguments=dict(config.arguments),
        task=config.task,
        modalities=config.modalities,
        classes=config.classes,
        regions=config.regions,
        activation="softmax",
        preprocessing=config.preprocessing.to_dict(),
        postprocessing=Postprocessing(smallest_enhancement_mm3=config.smallest_enhancement_mm3),
        training=training,
        license=config.license,
    )


def _same_parts(before: Sequence[Member], now: Sequence[Member], path: Path) -> None:
    """Refuse to go on with a cohort whose cases play other parts than when the run began."""
    parts, others = ({member.case: member.part for member in each} for each in (before, now))
    changed = sorted(name for name in {*parts, *others} if parts.get(name) != others.get(name))
    if changed:
        first = changed[0]
        raise TrainingError(
            f"{path}: {len(changed)} cases play another part than when the run began, for example "
            f"{first}: {parts.get(first, 'absent')}, now {others.get(first, 'absent')}; who was "
            "trained on would be held out. Give the cohort as it was, or begin a new run"
        )
