"""What the types of a training configuration allow, but no run can do."""

from __future__ import annotations

from neuroxai.core.errors import CaseError, TrainingError, suggestion
from neuroxai.data.case import CLASSES, REGIONS
from neuroxai.training.config.config import CohortSource, Config, PhantomSource
from neuroxai.training.config.config_numbers import check_numbers


def check(config: Config, source: str) -> None:
    """Refuse a configuration that cannot be run.

    Raises
    ------
    TrainingError
        Naming ``source`` and the key.
    """
    sources = (config.data.phantom, config.data.cohort, config.data.pictures)
    if sum(each is not None for each in sources) != 1:
        raise TrainingError(
            f"{source}: data needs exactly one of 'phantom', 'cohort' and 'pictures'"
        )
    if config.data.pictures is not None and config.task != "classification":
        raise TrainingError(f"{source}: data.pictures have classes, but no truth to segment by")
    if list(config.preprocessing.get("modalities", ())) != list(config.modalities):
        raise TrainingError(f"{source}: preprocessing.modalities is not the list modalities")
    if config.epochs is None and config.max_steps is None and config.max_minutes is None:
        raise TrainingError(f"{source}: set one of epochs, max_steps and max_minutes")
    check_numbers(config, source)
    if len(set(config.classes)) < max(2, len(config.classes)):
        raise TrainingError(
            f"{source}: classes is {list(config.classes)}, expected at least two different names"
        )
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
        _check_phantom(config.data.phantom, source)
    for cohort in (config.data.cohort, config.data.pictures):
        if cohort is not None:
            _check_cohort(cohort, source)
    _check_watch(config, source)


def _check_phantom(phantom: PhantomSource, source: str) -> None:
    from neuroxai.data.phantom.make import check_request

    (first, last), (start, end) = phantom.train, phantom.test
    if phantom.validation and phantom.validation[0] > phantom.validation[1]:
        raise TrainingError(
            f"{source}: data.phantom.validation is {list(phantom.validation)}, "
            "expected [first, one after the last]"
        )
    if first >= last or start > end or not phantom.spacings:
        raise TrainingError(f"{source}: data.phantom has no seeds or no spacings")
    for name, (low, high) in (
        ("validation", phantom.validation or (0, 0)),
        ("train", (first, last)),
    ):
        if max(low, start) < min(high, end):
            what = "trains" if name == "train" else "is watched"
            raise TrainingError(f"{source}: data.phantom {what} on seeds that it tests on")
    if phantom.validation and max(first, phantom.validation[0]) < min(last, phantom.validation[1]):
        raise TrainingError(f"{source}: data.phantom is watched on seeds that it trains on")
    if not 0 <= phantom.wide <= 1:
        raise TrainingError(f"{source}: data.phantom.wide is {phantom.wide!r}, expected 0 to 1")
    least = min(first, start, *(phantom.validation or ()))
    try:
        for spacing in phantom.spacings:
            check_request(least, spacing, None, phantom.variant, None, phantom.wide > 0)
    except CaseError as error:
        raise TrainingError(f"{source}: data.phantom: {error}") from error


def _check_cohort(cohort: CohortSource, source: str) -> None:
    for key in ("test_fraction", "validation_fraction"):
        if not 0 <= getattr(cohort, key) < 1:
            raise TrainingError(
                f"{source}: data.cohort.{key} is {getattr(cohort, key)!r}, expected 0 to below 1"
            )
    if cohort.folds == 1 or cohort.folds < 0 or not 0 <= cohort.fold < max(cohort.folds, 1):
        raise TrainingError(
            f"{source}: data.cohort.fold is {cohort.fold} of {cohort.folds} folds; "
            "expected 2 or more folds, counted from 0"
        )
    if sum((bool(cohort.test), bool(cohort.folds), cohort.split is not None)) > 1:
        raise TrainingError(
            f"{source}: data.cohort names more than one of test, folds and split; keep one"
        )


def _check_watch(config: Config, source: str) -> None:
    watched = config.validate_every is not None
    if config.patience is not None and not watched:
        raise TrainingError(f"{source}: patience needs validate_every, in epochs")
    cohort = config.data.cohort or config.data.pictures
    has_cases = (
        config.data.phantom is not None and config.data.phantom.validation is not None
    ) or (cohort is not None and (cohort.validation_fraction > 0 or cohort.split is not None))
    if config.shift_outputs and config.architecture != "deepseg":
        raise TrainingError(
            f"{source}: shift_outputs is for segmenters, not for {config.architecture}"
        )
    if config.shift_outputs and not has_cases:
        raise TrainingError(
            f"{source}: shift_outputs needs cases: set data.cohort.validation_fraction, "
            "or data.phantom.validation"
        )
    if watched and not has_cases:
        raise TrainingError(
            f"{source}: validate_every needs cases: set data.cohort.validation_fraction, "
            "or data.phantom.validation"
        )
    if (watched or config.shift_outputs) and config.task == "segmentation" and not config.regions:
        asked = "validate_every" if watched else "shift_outputs"
        raise TrainingError(
            f"{source}: {asked} looks at regions, but classes make up no region of "
            f"{', '.join(REGIONS)}; add classes or leave it out"
        )
    if config.frozen_epochs and not config.frozen:
        raise TrainingError(f"{source}: frozen_epochs is set, but frozen names no layer")
    if config.pretrained is not None and config.initial is not None:
        raise TrainingError(f"{source}: set initial or pretrained, not both")
    if config.pretrained is not None and config.architecture != "resnet50":
        raise TrainingError(
            f"{source}: pretrained weights are of a ResNet-50, not of {config.architecture}"
        )
