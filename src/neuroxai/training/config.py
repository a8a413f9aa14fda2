"""What a training run is asked to do: a YAML file, held to its types."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from neuroxai.core.errors import MissingExtraError, TrainingError, suggestion
from neuroxai.data.case import CLASSES, REGIONS

CONFIGS = Path(__file__).parent.parent / "configs"
"""The configurations that come with the package, found by their names."""


@dataclass(frozen=True)
class PhantomSource:
    """Synthetic cases; each pair of seeds is ``[first, one after the last]``."""

    train: tuple[int, int]
    test: tuple[int, int]
    spacings: tuple[float, ...] = (1.0,)
    """Millimeters. Training seeds take them in turn, so one that is named more often is used more
    often; each test seed is made at all of them, once."""
    variant: str | None = None
    wide: float = 0.0
    """Share of the training seeds that are made wide, far from the typical case; held-out seeds
    are then made both ways."""


@dataclass(frozen=True)
class CohortSource:
    """A folder of cases in any layout, split by patient."""

    folder: str
    test_fraction: float = 0.2
    test: tuple[str, ...] = ()
    """Patients held out by name; when empty, ``test_fraction`` of them are drawn with the seed."""


@dataclass(frozen=True)
class DataSource:
    """Exactly one of the sources."""

    phantom: PhantomSource | None = None
    cohort: CohortSource | None = None


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied; 0 (or an interval of one point) turns a step off."""

    flip: tuple[bool, ...] = (True, True, True)
    """Per axis X, Y, Z (slices: X, Y)."""
    zoom: tuple[float, float] = (0.8, 1.25)
    anisotropy: float = 1.15
    """Each axis is scaled further by up to this factor, either way."""
    rotation: float = 12.0
    """Degrees about each axis, at most."""
    tone: float = 0.35
    """Strength of a random monotone curve over each modality's gray values."""
    gamma: tuple[float, float] = (0.65, 1.55)
    contrast: tuple[float, float] = (0.75, 1.3)
    brightness: float = 0.1
    bias: float = 0.25
    """Log amplitude of a smooth multiplicative field."""
    noise: float = 0.06
    """Standard deviation of added noise, at most, as a fraction of the range."""
    blur: float = 0.9
    """Width of a Gaussian in voxels, at most."""
    thick_slices: float = 0.15
    """Probability that one axis is coarsened to half or a third of its resolution."""
    ceiling: tuple[float, float] = (0.4, 1.0)
    """Share of its range that a modality is scaled down to. A network's input is scaled by its
    brightest voxel, so one bright vessel, or a scrap of scalp, darkens all the rest."""


@dataclass(frozen=True)
class Config:
    """A training run. The YAML file holds these names and nothing else."""

    name: str
    task: Literal["segmentation", "classification"]
    architecture: str
    modalities: tuple[str, ...]
    preprocessing: Mapping[str, Any]
    data: DataSource
    initial: str | None = None
    """Checkpoint folder, or shipped network, whose weights the training starts from."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ("background", "NCR", "ED", "ET")
    patch: tuple[int, ...] = (128, 128, 128)
    tumor_fraction: float = 0.7
    """Share of patches whose center lies in the tumor."""
    slices_per_case: int = 8
    focus_steps: int = 0
    """First steps of a classifier that show squares around the tumor, not whole slices."""
    focus_size: int = 48
    """Side of those squares in voxels."""
    hint: float = 0.0
    """Weight of showing a classifier, while it learns, which tissue lies where."""
    hint_layers: tuple[str, ...] = ("layer2", "layer3")
    """Layers whose maps are to tell the tissues apart."""
    batch: int = 4
    epochs: int | None = None
    max_steps: int | None = None
    max_minutes: float | None = None
    """Of the training itself; making and reading cases and the evaluation come on top."""
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "poly", "plateau", "constant"] = "cosine"
    warmup: float = 0.03
    """Fraction of the run over which the learning rate rises from zero."""
    average: float = 0.0
    """Decay of the running average of the weights that is kept in the end; 0 keeps the last."""
    clip: float = 5.0
    """Largest norm of the gradient."""
    class_weights: tuple[float, ...] = ()
    augmentation: Augmentation = field(default_factory=Augmentation)
    precision: Literal["auto", "32", "bf16"] = "auto"
    channels_last: bool | None = None
    """Memory layout of the feature maps; null picks it on a GPU only."""
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int | None = None
    """Processes that make and read cases; null takes all cores."""
    cache: str | None = None
    """Folder for prepared cases; null is the user's cache folder."""
    save_every: int = 500
    """Steps between two writings of ``last.ckpt``."""
    keep_last: bool = False
    """Keep ``last.ckpt`` after the run has ended."""
    output_dtype: Literal["float32", "float16"] = "float32"
    license: str = "Apache-2.0"

    @property
    def regions(self) -> dict[str, tuple[str, ...]]:
        """The nested tumor regions that these classes make up; none for a classifier."""
        if self.task != "segmentation":
            return {}
        return {
            region: members
            for region, members in REGIONS.items()
            if all(member in self.classes for member in members)
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain tables, lists, numbers and text, as the YAML file holds them."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    def digest(self) -> str:
        """Return a hash of all that decides the result, so not of device, workers or folders."""
        table = self.to_dict()
        for key in ("device", "workers", "cache", "save_every", "keep_last"):
            del table[key]
        return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def read_config(
    source: str | Path, *, overrides: Sequence[str] = (), data: str | Path | None = None
) -> Config:
    """Read a configuration by path, or one of the package's own by name.

    Parameters
    ----------
    source
        A YAML file, or a name such as ``phantom-segmentation``.
    overrides
        Texts ``key=value`` or ``part.key=value``; the value is YAML.
    data
        A cohort folder that takes the place of the file's data source.

    Raises
    ------
    TrainingError
        Naming the file and the key that is missing, unknown or of the wrong kind.
    """
    path = Path(source)
    shipped = {entry.stem: entry for entry in sorted(CONFIGS.glob("*.yaml"))}
    if str(source) in shipped:
        path = shipped[str(source)]
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise TrainingError(
            f"{path}: no such configuration; {suggestion(path.stem, shipped)}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: cannot be read ({error})") from error
    table = _yaml(text, str(path))
    if not isinstance(table, dict):
        raise TrainingError(f"{path}: holds no table of settings, expected lines like 'batch: 4'")
    for override in overrides:
        _override(table, override)
    if data is not None:
        earlier = (table.get("data") or {}).get("cohort") or {}
        table["data"] = {"cohort": {**earlier, "folder": str(data)}}
    return config_from_dict(table, source=str(path))


def config_from_dict(table: Mapping[str, Any], *, source: str = "configuration") -> Config:
    """Build a :class:`Config` from plain tables; errors name ``source`` and the key."""
    table = dict(table)
    steps = table.get("preprocessing")
    if isinstance(steps, Mapping) and "modalities" in table:
        # Said once in the file; the card repeats it for whoever uses the network.
        table["preprocessing"] = {"modalities": table["modalities"], **steps}
    config = _build(Config, table, source, "")
    if not isinstance(config, Config):
        raise TypeError(type(config))
    _check(config, source)
    return config


def _yaml(text: str, source: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("Training", "train", "pyyaml") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TrainingError(f"{source}: not valid YAML ({error})") from error


def _override(table: dict[str, Any], override: str) -> None:
    key, sign, value = override.partition("=")
    if not sign or not key:
        raise TrainingError(f"--set {override}: expected key=value, for example batch=2")
    *parts, last = key.strip().split(".")
    for part in parts:
        inner = table.setdefault(part, {})
        if not isinstance(inner, dict):
            raise TrainingError(f"--set {override}: {part} is no table, it has no keys")
        table = inner
    table[last] = _yaml(value, f"--set {override}")


def _build(kind: type, table: object, source: str, prefix: str) -> Any:
    """Make the dataclass ``kind`` from ``table``."""
    if not isinstance(table, Mapping):
        raise TrainingError(f"{source}: {prefix[:-1]} is {table!r}, expected a table")
    hints = typing.get_type_hints(kind)
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}
    for key in table:
        if key not in fields:
            raise TrainingError(f"{source}: unknown key '{prefix}{key}'; {suggestion(key, fields)}")
    values: dict[str, Any] = {}
    for key, entry in fields.items():
        if key in table:
            values[key] = _convert(table[key], hints[key], source, prefix + key)
        elif entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
            raise TrainingError(f"{source}: the key '{prefix}{key}' is missing")
    return kind(**values)


def _convert(value: Any, kind: Any, source: str, key: str) -> Any:
    """Hold one value to its type."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build(typing.cast("type", kind), value, source, f"{key}.")
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _convert(value, inner[0], source, key)
    if origin is Literal:
        value = str(value)
        if value in inner:
            return value
        raise TrainingError(f"{source}: {key} is {value!r}; {suggestion(value, inner)}")
    if origin is tuple:
        endless = len(inner) == 2 and inner[1] is Ellipsis
        if not isinstance(value, list | tuple) or (not endless and len(value) != len(inner)):
            count = "a list" if endless else f"a list of {len(inner)}"
            raise TrainingError(f"{source}: {key} is {value!r}, expected {count}")
        kinds = [inner[0]] * len(value) if endless else inner
        return tuple(
            _convert(item, each, source, f"{key}[{index}]")
            for index, (item, each) in enumerate(zip(value, kinds, strict=True))
        )
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        # YAML 1.1 reads 1e-3 as text.
        try:
            return float(value)
        except ValueError:
            pass
    plain = Mapping if origin is not None else kind
    if isinstance(value, plain) and (kind is bool or not isinstance(value, bool)):
        return value
    raise TrainingError(
        f"{source}: {key} is {value!r}, expected {getattr(plain, '__name__', plain)}"
    )


def _check(config: Config, source: str) -> None:
    """Refuse what the types allow but cannot be run."""
    if (config.data.phantom is None) == (config.data.cohort is None):
        raise TrainingError(f"{source}: data needs exactly one of 'phantom' and 'cohort'")
    if list(config.preprocessing.get("modalities", ())) != list(config.modalities):
        raise TrainingError(f"{source}: preprocessing.modalities is not the list modalities")
    if config.epochs is None and config.max_steps is None and config.max_minutes is None:
        raise TrainingError(f"{source}: set one of epochs, max_steps and max_minutes")
    positive = ("batch", "epochs", "max_steps", "max_minutes", "learning_rate", "save_every")
    for key in (*positive, "slices_per_case", "focus_size", "workers"):
        value = getattr(config, key)
        if value is not None and value <= 0:
            raise TrainingError(f"{source}: {key} is {value!r}, expected a number above 0")
    for key in ("tumor_fraction", "warmup", "average"):
        if not 0 <= getattr(config, key) <= 1:
            raise TrainingError(f"{source}: {key} is {getattr(config, key)!r}, expected 0 to 1")
    if config.class_weights and len(config.class_weights) != len(config.classes):
        raise TrainingError(
            f"{source}: class_weights has {len(config.class_weights)} numbers, "
            f"expected one for each of {', '.join(config.classes)}"
        )
    if config.task == "segmentation":
        for name in config.classes:
            if name not in CLASSES:
                raise TrainingError(
                    f"{source}: unknown class {name!r}; {suggestion(name, CLASSES)}"
                )
        if config.classes[0] != "background":
            raise TrainingError(f"{source}: the first class is not 'background'")
    if config.data.phantom is not None:
        first, last = config.data.phantom.train
        start, end = config.data.phantom.test
        if first >= last or start > end or not config.data.phantom.spacings:
            raise TrainingError(f"{source}: data.phantom has no seeds or no spacings")
        if max(first, start) < min(last, end):
            raise TrainingError(f"{source}: data.phantom trains on seeds that it tests on")
        if not 0 <= config.data.phantom.wide <= 1:
            raise TrainingError(
                f"{source}: data.phantom.wide is {config.data.phantom.wide!r}, expected 0 to 1"
            )
