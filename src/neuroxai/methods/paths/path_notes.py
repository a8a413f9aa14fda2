"""Notes on a map along a path: its baseline, its gap, and whether it is void."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuroxai.methods.paths.completeness import gap_notes, void_notes, worst
from neuroxai.methods.paths.path_start import CANDIDATES, JUMP

LARGE_REMAINDER = 0.1
"""Share of the prediction that remains at a baseline above which a map says so in its first line.
As much of the answer is then unexplained as with the largest completeness gap that carries no note.
Measured shares are far from it: see docs/decisions/0041-choice-of-the-baseline.md."""

Diagnostics = Mapping[str, Any]


def describes_path(diagnostics: Diagnostics) -> bool:
    """Return whether diagnostics are those of a path method."""
    return {"baselines", "remaining_prediction", "path_excess"} <= diagnostics.keys()


def path_warnings(diagnostics: Diagnostics) -> tuple[str, ...]:
    """Return why a map is void or explains little of the answer; placed before all other notes.

    Parameters
    ----------
    diagnostics
        Those of a path method.
    """
    gaps, excesses = diagnostics["completeness_gap"], diagnostics["path_excess"]
    warnings = list(void_notes(gaps, excesses))
    b = _most_remaining(diagnostics)
    share = diagnostics["remaining_prediction"][b]
    if share is not None and share > LARGE_REMAINDER:
        change = f"from {_score(diagnostics, b):.3g} to {_score_at_x(diagnostics, b):.3g}"
        warnings.append(
            f"the map does not explain the prediction{_of_sample(diagnostics, b)}: {share:.1%} of "
            f"it remains at the baseline {diagnostics['baselines'][b]}, so the map explains only "
            f"the change of the target {change}{_others(diagnostics, b)}"
        )
    jumping = [k for k in range(len(diagnostics["baselines"])) if _jump(diagnostics, k) > JUMP]
    if jumping:
        b = max(jumping, key=lambda k: _jump(diagnostics, k))
        warnings.append(
            f"the map explains only part of the target's change{_of_sample(diagnostics, b)}: at "
            f"the baseline {diagnostics['baselines'][b]}, {_jump(diagnostics, b):.0%} of it occurs "
            "in the first thousandth of the path, and more at the others that were tried: choose "
            "another baseline or method"
        )
    return tuple(warnings)


def path_notes(diagnostics: Diagnostics) -> tuple[str, ...]:
    """Return what remains at the baseline, why it was chosen, and the gap.

    Parameters
    ----------
    diagnostics
        Those of a path method.
    """
    notes = list(_reasons(diagnostics))
    b = _most_remaining(diagnostics)
    share = diagnostics["remaining_prediction"][b]
    if share is None or share <= LARGE_REMAINDER:
        known = "" if share is None else f"{share:.1%} of the prediction remains, and "
        notes.append(
            f"at the baseline {diagnostics['baselines'][b]}{_of_sample(diagnostics, b)}, {known}"
            f"the target is {_score(diagnostics, b):.3g}, compared with "
            f"{_score_at_x(diagnostics, b):.3g} at the image"
        )
    return (*notes, *_gap(diagnostics))


def worst_of_copies(copies: Sequence[Diagnostics]) -> dict[str, Any]:
    """Return the diagnostics of the paths of several noisy copies of a batch, each at its worst.

    What concerns the baseline is that of the copy where most remains.
    """
    found: dict[str, Any] = {}
    samples = range(len(copies[0]["baselines"]))
    worst_copy = [
        max(copies, key=lambda each: each["remaining_prediction"][b] or 0.0) for b in samples
    ]
    for key in ("baselines", "remaining_prediction", "remaining_target", "score_at_baseline",
                "score_change"):  # fmt: skip
        found[key] = [each[key][b] for b, each in zip(samples, worst_copy, strict=True)]
    for key in ("completeness_gap", "path_excess"):
        found[key] = [max((c[key][b] for c in copies), key=lambda v: v or 0.0) for b in samples]
    overall = worst_copy[_most_remaining(found)]
    for each in (*copies, overall):
        of_path = ("tried_baselines", "tolerance", "refined_from")
        found |= {key: each[key] for key in of_path if key in each}
    return found | {"nodes": max(each.get("nodes", 0) for each in copies)}


def _most_remaining(diagnostics: Diagnostics) -> int:
    """Return the sample of which most of the prediction remains."""
    shares = diagnostics["remaining_prediction"]
    return max(range(len(shares)), key=lambda b: -1.0 if shares[b] is None else shares[b])


def _of_sample(diagnostics: Diagnostics, b: int) -> str:
    count = len(diagnostics["baselines"])
    return "" if count == 1 else f" of sample {b}"


def _score(diagnostics: Diagnostics, b: int) -> float:
    return float(diagnostics["score_at_baseline"][b])


def _score_at_x(diagnostics: Diagnostics, b: int) -> float:
    return _score(diagnostics, b) + float(diagnostics["score_change"][b])


def _jump(diagnostics: Diagnostics, b: int) -> float:
    """Return the jump at the baseline that ``auto`` chose; 0 if it was given."""
    tried = diagnostics.get("tried_baselines", {}).get(diagnostics["baselines"][b])
    return 0.0 if tried is None else float(tried["jump"][b])


def _others(diagnostics: Diagnostics, b: int) -> str:
    """Return what remains at the other baselines that ``auto`` tried."""
    own = diagnostics["baselines"][b]
    others = {k: v for k, v in diagnostics.get("tried_baselines", {}).items() if k != own}
    if not others:
        return ": choose another baseline, or auto"
    each = ", ".join(
        f"{name} {found['remaining_prediction'][b]:.1%}"
        + (" and a jump" if found["jump"][b] > JUMP else "")
        for name, found in others.items()
        if found["remaining_prediction"][b] is not None
    )
    return f"; no other baseline is better ({each}): give a better one, or use another method"


def _reasons(diagnostics: Diagnostics) -> list[str]:
    """Return why ``auto`` left zero, once for each chosen baseline."""
    zero = diagnostics.get("tried_baselines", {}).get(CANDIDATES[0])
    if zero is None:
        return []
    jumps: dict[str, int] = {}
    remains: dict[str, int] = {}
    for b, name in enumerate(diagnostics["baselines"]):
        if name != CANDIDATES[0]:
            (jumps if zero["jump"][b] > JUMP else remains)[name] = b
    return [
        "the network responds to contrast rather than brightness: "
        f"{zero['jump'][b]:.0%} of the score's change from a zero image to this one occurs in the "
        f"first thousandth of the path, so the path starts at the baseline {name}"
        for name, b in jumps.items()
    ] + [
        f"{zero['remaining_prediction'][b] or 0:.1%} of the prediction remains at a zero image, so "
        f"the path starts at the baseline {name}"
        for name, b in remains.items()
    ]


def _gap(diagnostics: Diagnostics) -> list[str]:
    """Return notes on the gap, and on the nodes that it took."""
    gaps, tolerance = diagnostics["completeness_gap"], diagnostics.get("tolerance")
    notes = []
    if "refined_from" in diagnostics:
        notes.append(
            f"{diagnostics['nodes']} nodes were used instead of {diagnostics['refined_from']}, "
            f"because the path is rough: refined to a gap below {tolerance:.0%}; set tolerance to "
            "change this"
        )
    if tolerance is not None and worst(gaps) > tolerance:
        notes.append(
            f"the completeness gap is {worst(gaps):.1%} with {diagnostics['nodes']} nodes, above "
            f"the tolerance of {tolerance:.1%}"
        )
        return notes
    return [*notes, *gap_notes(gaps)]
