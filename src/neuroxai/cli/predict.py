"""``neuroxai predict``: a network's prediction for a case."""

from __future__ import annotations

from neuroxai.cli import checks, options
from neuroxai.cli.case import read_one_case
from neuroxai.cli.console import plain, status


def predict(
    case: options.CasePath = None,
    file: options.File = None,
    model: options.ModelName = options.DEFAULT_MODEL,
    weights: options.WeightsFile = None,
    card: options.CardFile = None,
    trust: options.Trust = False,
    layout: options.LayoutName = None,
    slice_index: options.Slice = None,
    device: options.Device = "auto",
    memory: options.Memory = None,
    seed: options.Seed = 0,
    out: options.Out = None,
) -> None:
    """Segment or classify a case, on the scan's own grid.

    Research use only, not for clinical use.
    """
    checks.check_run(device, memory)
    checks.check_case(case, file, layout)
    checks.check_inputs(case, file, layout, checks.check_network(model, weights, card))

    from neuroxai.core.engine.allocator import tune_allocator
    from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
    from neuroxai.files.atomic import write_json
    from neuroxai.files.folder import Results, refuse_other_case
    from neuroxai.files.names import results_folder
    from neuroxai.models.loading import load_model
    from neuroxai.patient.label_table import label_tables
    from neuroxai.workflows.session import open

    if memory is None:  # kept memory would exceed the limit
        tune_allocator()
    checks.check_hardware(device)
    loaded = load_model(model, weights=weights, card=card, trust=trust)
    study = read_one_case(case, file, layout, loaded)
    folder = results_folder(out, study.name)
    refuse_other_case(folder, "prediction.json", study.name)
    with Results(folder) as results:
        with (
            status(f"{study.name}: running {loaded.card.name} ..."),
            open(loaded, study, slice_index=slice_index, device=device, memory=memory) as session,
        ):
            prediction = session.prediction
        labels = prediction.save(results.folder)
        if labels is not None:
            results.add(labels, *label_tables(labels))
        content = {
            "case": study.name,
            "model": session.identity,
            **prediction.describe(),
            "warnings": [*study.warnings, *prediction.warnings],
            "seed": seed,
            "use": NOT_FOR_CLINICAL_USE,
        }
        results.add(write_json(results.folder / "prediction.json", content))
    stdout = plain()
    for name, probability in prediction.probabilities.items():
        stdout.print(f"{name}: {probability:.1%}")
    dice = prediction.dice()
    for name, volume in prediction.volumes_ml().items():
        score = f", Dice with the truth {dice[name]:.3f}" if name in dice else ""
        stdout.print(f"{name}: {volume:.1f} ml{score}")
    for warning in (*study.warnings, *prediction.warnings):
        stdout.print(f"Warning: {warning}", soft_wrap=True)
    stdout.print(f"Written: {results.written[0]}", soft_wrap=True)
    stdout.print(NOT_FOR_CLINICAL_USE)
