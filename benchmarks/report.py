"""Make docs/benchmarks.md of what the benchmarks wrote.

python benchmarks/report.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"

ORDER = (
    "passes", "seven_maps", "grad_cam", "session", "inspection", "guided_ig",
    "integrated_gradients", "memory", "sliding_window", "import_time", "cli_start", "convolutions",
    "scaling", "training", "augmentation", "gpu",
)  # fmt: skip

HEAD = """# Benchmarks

Made by `make bench` (or one script of `benchmarks/` and `python benchmarks/report.py`), never
typed. A ratio is ours over the other's, in the same run; where the bar says ≥, it is the other's
over ours. **F** is a hand-written frozen forward pass and `torch.autograd.grad` to the input in
stock torch: what a careful user would write. Ratios nearer than 1.25 to each other are ties on a
machine that others share.
"""


def main() -> None:
    """Read the results and write the page."""
    parts = [HEAD]
    for script in ORDER:
        path = RESULTS / f"{script}.json"
        parts.append(_section(json.loads(path.read_text())) if path.exists() else _absent(script))
    if (PAGE.parent / "benchmarks-scaling.png").exists():
        parts.append("![Time and memory against volume, steps, targets](benchmarks-scaling.png)\n")
    PAGE.write_text("\n".join(parts))
    print(f"Written: {PAGE}")


def _section(found: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    lines = [
        f"## {found['script']}", "",
        f"`benchmarks/{found['script']}.py`, {found['date']}, {found['processor']}, "
        f"{found['threads']} threads of {found['cores']} cores, {found['system']}, Python "
        f"{found['python']}, {versions}; load at the end {found['load']}.", "",
    ]  # fmt: skip
    if found["rows"]:
        lines += ["| what | ours | against | theirs | ratio | bar | |", "|---" * 7 + "|"]
    for row in found["rows"]:
        bar = "" if row["bar"] is None else f"{'≥' if row['at_least'] else '≤'} {row['bar']:g}"
        verdict = {None: "", True: "met", False: "**missed**"}[row["met"]]
        told = "; ".join(part for part in (verdict, row["detail"]) if part)
        lines.append(
            f"| {row['what']} | {_figure(row['ours'], row['unit'])} | {row['against']} | "
            f"{_figure(row['theirs'], row['unit'])} | {row['ratio']:.2f} | {bar} | {told} |"
        )
    lines += ["", *(f"Not run: {sentence}." for sentence in found["skipped"])]
    return "\n".join(lines).rstrip() + "\n"


def _figure(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}".rstrip() if abs(value) < 1000 else f"{value:,.0f} {unit}".rstrip()


def _absent(script: str) -> str:
    return f"## {script}\n\nNot measured yet: run `benchmarks/{script}.py`.\n"


if __name__ == "__main__":
    main()
