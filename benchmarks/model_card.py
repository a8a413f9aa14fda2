"""The shipped network's page: what it reaches on phantoms it never saw, and where it fails.

python benchmarks/model_card.py [CHECKPOINT] [--out docs/cards] [--seeds 100000 100030]

Writes ``NAME.md`` and the pictures of its worst cases. Phantoms are kept in the user's cache
folder, so that a second run is faster. Nothing is typed by hand but what it is meant for.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from neuroxai.data.brats import read_case
from neuroxai.data.case import REGIONS
from neuroxai.data.phantom import write_cohort
from neuroxai.data.phantom.make import RECIPE
from neuroxai.data.preprocessing import Preprocessing
from neuroxai.models.formats import DEFAULT_MODEL
from neuroxai.models.loading import load_model
from neuroxai.models.model import Model
from neuroxai.render.figures import draw_modalities
from neuroxai.reports.evaluation_scores import cases_with_region, segmentation_scores
from neuroxai.reports.pictures import scan_of
from neuroxai.workflows.evaluate import Evaluation, SegmentedCase, Settings, evaluate
from neuroxai.workflows.predict import predict

SPACINGS = (1.0, 2.0)
FAILURES = 4

INTENDED = """\
## Meant for
Trying the software, its demo and its tests, on a network that nobody has to download and that
was trained on no patient. Research into explanations: what it was shown is known to the voxel.

**Not for clinical use, and not for figures about patients.** It has never seen a patient, and no
performance on patients is claimed. Where it reads a real scan, the phantoms reached that far.
"""


def main() -> None:
    """Measure, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "cards")
    parser.add_argument("--seeds", type=int, nargs=2, default=(100_000, 100_030))
    chosen = parser.parse_args()
    model = load_model(chosen.checkpoint)
    seeds = range(*chosen.seeds)
    groups: dict[tuple[bool, float], tuple[list[Path], Evaluation]] = {}
    for wide in (False, True):
        for spacing in SPACINGS:
            folders = _cohort(seeds, spacing, wide)
            print(f"evaluating {len(folders)} phantoms, {spacing:g} mm, wide: {wide}", flush=True)
            groups[wide, spacing] = folders, evaluate(model, folders)
    chosen.out.mkdir(parents=True, exist_ok=True)
    name = model.card.name
    page = [*_head(model, seeds), *_table(groups), *_rule(model, groups), INTENDED, *_how(model)]
    page += _failures(model, groups, chosen.out)
    target = chosen.out / f"{name}.md"
    target.write_text("\n".join(page) + "\n", encoding="utf-8")
    print(f"written: {target}")


def _cohort(seeds: Sequence[int], spacing: float, wide: bool) -> list[Path]:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kind = "wide" if wide else "typical"
    folder = base / "neuroxai" / "model-card" / f"recipe-{RECIPE}-{kind}-{spacing:g}mm"
    workers = len(os.sched_getaffinity(0))
    return write_cohort(folder, seeds, spacing=spacing, wide=wide, workers=workers)


def _head(model: Model, seeds: Sequence[int]) -> list[str]:
    card = model.card
    return [
        f"# {card.name}",
        "",
        "**Research use only, not for clinical use.** Made by `python benchmarks/model_card.py`.",
        "",
        f"- Network: {card.architecture}, {sum(p.numel() for p in model.network.parameters()):,} "
        "parameters",
        f"- In: {', '.join(card.modalities)}; out: {', '.join(card.classes)}",
        *_grid(model),
        f"- Weights: sha256 {model.weights_sha256}, {card.weights_dtype}, {card.license}",
        f"- Measured on phantoms of recipe {RECIPE}, seeds {seeds[0]} to {seeds[-1]}, none of "
        "which it was trained on, each on its own grid",
        "",
    ]


def _grid(model: Model) -> list[str]:
    """Say what voxels the network sees, where it does not take a scan's own."""
    edges = Preprocessing.from_dict(dict(model.card.preprocessing)).voxel_mm
    if edges is None:
        return []
    size = " x ".join(f"{mm:g}" for mm in edges)
    return [
        f"- Sees the brain's box in voxels of {size} mm; labels and maps are brought back to the "
        "scan's own"
    ]


def _table(groups: dict[tuple[bool, float], tuple[list[Path], Evaluation]]) -> list[str]:
    lines = [
        "## What it reaches",
        "Mean with its 95 % interval (2,000 bootstrap draws of cases). *Typical* phantoms are as",
        "in the demo; *wide* ones are drawn far beyond: swapped contrasts, cysts, blood, cavities,",
        "ghosts, halos, scraps of skull.",
        "",
        "| phantoms | voxels | cases | Dice WT % | Dice TC % | Dice ET % | HD95 WT mm | HD95 TC mm "
        "| HD95 ET mm |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (wide, spacing), (_, measured) in groups.items():
        figures = segmentation_scores(measured)
        dice = [figures[region]["dice"].percent() for region in REGIONS]
        far = [figures[region]["hausdorff95_mm"].plain(1) for region in REGIONS]
        kind = "wide" if wide else "typical"
        cells = " | ".join([*dice, *far])
        lines.append(f"| {kind} | {spacing:g} mm | {len(measured.segmented)} | {cells} |")
    for wide in (False, True):
        found = [each for key, (_, each) in groups.items() if key[0] == wide]
        cases = [case for each in found for case in each.segmented]
        means = [sum(case.regions[r].dice for case in cases) / len(cases) for r in REGIONS]
        cells = " | ".join(f"**{100 * mean:.1f}**" for mean in means)
        kind = "wide" if wide else "typical"
        lines.append(f"| {kind} | both | {len(cases)} | {cells} | | | |")
    return [*lines, "", *_present(groups)]


def _present(groups: dict[tuple[bool, float], tuple[list[Path], Evaluation]]) -> list[str]:
    """Say what the means are without the phantoms that lack a region."""
    lines = [
        "A region that is empty in both, truth and answer, counts as Dice 1, as in BraTS. Over the",
        "phantoms alone that have the region:",
        "",
    ]
    for (wide, spacing), (_, measured) in groups.items():
        figures, having = segmentation_scores(measured), cases_with_region(measured)
        said = [
            f"{region} {figures[region]['dice_where_present'].percent()} % of {having[region]}"
            for region in REGIONS
        ]
        lines.append(f"- {'wide' if wide else 'typical'}, {spacing:g} mm: {', '.join(said)}")
    return [*lines, ""]


def _rule(
    model: Model, groups: dict[tuple[bool, float], tuple[list[Path], Evaluation]]
) -> list[str]:
    """Say what calling small enhancement necrosis does, by what the network says without it."""
    least = model.card.smallest_enhancement_mm3
    if not least:
        return []
    lines = [
        f"Enhancing tumor of less than {least:g} mm³ in all is called necrosis, as its card asks.",
        "Without that the mean Dice of ET is:",
        "",
    ]
    for (wide, spacing), (folders, found) in groups.items():
        et = [case.regions["ET"] for case in found.segmented]
        # Where some is left, the rule has changed nothing.
        asked = [folder for folder, one in zip(folders, et, strict=True) if one.found_ml == 0]
        again = evaluate(model, asked, Settings(smallest_enhancement_mm3=0.0)) if asked else None
        without = [one.dice for one in et if one.found_ml > 0]
        without += [case.regions["ET"].dice for case in again.segmented] if again else []
        kind = "wide" if wide else "typical"
        lines.append(f"- {kind}, {spacing:g} mm: {100 * sum(without) / len(without):.1f} %")
    return [*lines, ""]


def _how(model: Model) -> list[str]:
    """Say what the network was trained on, stage by stage, the last first."""
    lines = [
        "## Trained on",
        "Synthetic phantoms on MNI152 anatomy alone. The last stage first:",
        "",
    ]
    training: object = model.card.training
    while isinstance(training, dict):
        data = training.get("data", {})
        seconds = training.get("seconds", {}).get("training", 0)
        seeds = data.get("train_seeds", ["?", "?"])
        wide = data.get("wide") or 0
        lines.append(
            f"- seeds {seeds[0]} to {seeds[1]}, {training.get('steps', '?')} steps, "
            f"{seconds / 60:.0f} minutes on two CPU cores" + (f", {wide:.0%} wide" if wide else "")
        )
        moved = {name: by for name, by in training.get("logit_bias", {}).items() if by}
        if moved:
            low, high = data.get("validation_seeds", ["?", "?"])
            bias = ", ".join(f"{name} {by:+g}" for name, by in moved.items())
            lines[-1] += f"; then a logit bias fitted on seeds {low} to {high}: {bias}"
        if training.get("averaged"):
            lines[-1] += "; then averaged, half and half, with the weights it began with"
        if training.get("converted"):
            lines[-1] += f"; then converted, {training['converted']}"
        training = training.get("initial", {}).get("training")
    return [*lines, ""]


def _failures(
    model: Model, groups: dict[tuple[bool, float], tuple[list[Path], Evaluation]], out: Path
) -> list[str]:
    lines = ["## Where it fails", "The worst cases by the mean Dice of the three regions.", ""]
    ranked: list[tuple[float, bool, float, Path, SegmentedCase]] = []
    for (wide, spacing), (folders, found) in groups.items():
        for folder, case in zip(folders, found.segmented, strict=True):
            mean = sum(case.regions[region].dice for region in REGIONS) / len(REGIONS)
            ranked.append((mean, wide, spacing, folder, case))
    for kind in (False, True):
        worst = sorted((r for r in ranked if r[1] == kind), key=lambda r: r[0])[: FAILURES // 2]
        for number, (_, wide, spacing, folder, case) in enumerate(worst, start=1):
            word = "wide" if wide else "typical"
            name = f"{model.card.name}-fails-{word}-{number}.png"
            _draw(model, folder, out / name)
            dice = ", ".join(f"{r} {case.regions[r].dice:.2f}" for r in REGIONS)
            lines += [f"{word}, {spacing:g} mm, {case.name}: {dice}", "", f"![{word}]({name})", ""]
    return lines


def _draw(model: Model, folder: Path, path: Path) -> None:
    case = read_case(folder)
    answer = predict(model, case)
    placement = Preprocessing.from_dict(dict(model.card.preprocessing)).prepare(case).placement
    scan = scan_of(case, placement, answer)
    facts = {"Dice": ", ".join(f"{n} {value:.2f}" for n, value in answer.dice().items())}
    draw_modalities(scan, [], "WT", path, facts=facts)


if __name__ == "__main__":
    main()
