"""Tables of the result of quality.py, for the terminal and docs/benchmarks.md."""

from __future__ import annotations

from typing import Any

Cohort = dict[str, Any]


def tables(found: Cohort) -> str:
    """Return the counts of a cohort as Markdown."""
    names = {"real": "Real scans", "typical": "Typical phantoms", "wide": "Wide phantoms"}
    seconds, alarms = found["seconds"], found["alarms"]
    lines = [
        f"### {names[found['kind']]}", "",
        f"{found['cases']} right cases of up to {found['voxels']:,} voxels: "
        f"**{len(found['alarmed'])} with an alarm**{_counts(alarms, ': ')}. "
        f"Notices{_counts(found['notices'], ': ') or ': none'}. Seconds of one core per case: "
        f"median {seconds['median']:.1f}, largest {seconds['largest']:.1f}.", "",
        *(f"- {name}: {alarm}" for name, alarm in found["alarmed"].items()),
    ]  # fmt: skip
    if found["faults"]:
        lines += ["", "| planted fault | checks | caught | bar |", "| --- | --- | ---: | --- |"]
    lines += [
        f"| {row['fault']} | {', '.join(row['checks'])} | {row['caught']} of {row['of']} | "
        f"{_bar(row)} |"
        for row in found["faults"]
    ]
    if found["variants"]:
        lines += ["", "| hard but right case | with an alarm |", "| --- | ---: |"]
    lines += [
        f"| {row['variant']} | {row['alarmed']} of {row['of']}{_counts(row['checks'], ': ')} |"
        for row in found["variants"]
    ]
    return "\n".join(lines) + "\n"


def _counts(by_check: dict[str, int], before: str) -> str:
    several = ", ".join(f"{check} {count}" for check, count in by_check.items())
    return before + several if several else ""


def _bar(row: dict[str, Any]) -> str:
    if row["bar"] is None:
        return ""
    met = row["caught"] >= row["bar"] * row["of"]
    return f"≥ {row['bar']:.0%}, {'met' if met else '**missed**'}"
