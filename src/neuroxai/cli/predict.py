"""``neuroxai predict``: what a network says of a case."""

from __future__ import annotations

from neuroxai.cli import options


def predict(
    case: options.CasePath = None,
    file: options.File = None,
    model: options.ModelName = "deepseg-phantom",
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
    """Segment or classify a case, on the patient's own grid. Not for clinical use."""
    from rich.console import Console

    from neuroxai.core.allocator import tune_allocator
    from neuroxai.core.explanation import NOT_FOR_CLINICAL_USE
    from neuroxai.explainer import describe_model
    from neuroxai.explainer import predict as run
    from neuroxai.models.loading import load_model
    from neuroxai.results import results_folder, write_json

    tune_allocator()
    console = Console(stderr=True)
    loaded = load_model(model, weights=weights, card=card, trust=trust)
    study = options.read_one_case(case, file, layout, loaded)
    with console.status(f"{study.name}: asking {loaded.card.name} ..."):
        prediction = run(loaded, study, slice_index=slice_index, device=device, memory=memory)
    folder = results_folder(out, study.name)
    written = prediction.save(folder)
    summary = write_json(
        folder / "prediction.json",
        {
            "case": study.name,
            "model": describe_model(loaded),
            **prediction.describe(),
            "warnings": [*study.warnings, *prediction.warnings],
            "seed": seed,
            "use": NOT_FOR_CLINICAL_USE,
        },
    )
    stdout = Console(highlight=False)
    for name, chance in prediction.probabilities.items():
        stdout.print(f"{name}: {chance:.1%}")
    dice = prediction.dice()
    for name, volume in prediction.volumes_ml().items():
        score = f", Dice with the truth {dice[name]:.3f}" if name in dice else ""
        stdout.print(f"{name}: {volume:.1f} ml{score}")
    for warning in (*study.warnings, *prediction.warnings):
        stdout.print(f"Warning: {warning}", soft_wrap=True)
    stdout.print(f"Written: {written or summary}", soft_wrap=True)
    stdout.print(NOT_FOR_CLINICAL_USE)
