"""Faint phantoms: tumors as inconspicuous as many real ones, with unchanged labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from neuroxai.data.case import MODALITIES
from neuroxai.data.phantom.field import stream
from neuroxai.data.phantom.tumor import Plan

Signals = dict[str, dict[str, float]]

_TUMOR = ("NCR", "NET", "ED", "ET")


@dataclass(frozen=True)
class Faint:
    """Deviations of a faint phantom from the typical case.

    Real lesions are less conspicuous than those of typical phantoms, and real T2 and T1ce have
    heavier tails: plain over robust deviation is 1.11–1.53 in T1ce of four scans, 1.18–1.25 in
    phantoms.
    """

    contrast: Mapping[str, float]
    """Factor on the difference between tumor and white matter, by modality; 0.7 to 1.2."""
    margin_signal: float
    """Share of the signal of edema that remains at its margin."""
    edema_reach: float
    """Factor on the level of fluid at which edema ends; below 1, edema is wider."""
    dark_edema: tuple[float, float] | None
    """Signal of edema on T1 and on T2 relative to white matter, as dark and as bright as necrosis;
    None for the typical ones."""
    tails: tuple[float, float]
    """Factors on vessels and dura on T1ce, and on CSF on T2."""
    enhancement: float | None
    """Signal of enhancing tumor on T1ce relative to white matter; None for the typical one."""
    non_enhancing: float | None
    """Fraction of the rim that does not enhance; None for the typical one."""

    def plan(self, plan: Plan) -> Plan:
        """Return the plan of a tumor with a wide, faint margin and patchy enhancement."""
        silent = self.non_enhancing if plan.appearance == "HGG" else None
        return replace(
            plan,
            edema_level=plan.edema_level * self.edema_reach,
            margin_signal=self.margin_signal,
            non_enhancing=plan.non_enhancing if silent is None else silent,
        )

    def signals(self, signals: Signals) -> Signals:
        """Return the signals of :func:`~neuroxai.data.phantom.contrast.draw_signals`, changed."""
        changed = {modality: dict(table) for modality, table in signals.items()}
        if self.dark_edema is not None:
            dark, bright = self.dark_edema
            # The core stays as much darker than edema as it was; see DARKER_THAN_EDEMA.
            factor = dark * changed["T1"]["WM"] / changed["T1"]["ED"]
            for modality in ("T1", "T1ce"):
                for tissue in ("ED", "NCR", "NET"):
                    changed[modality][tissue] *= factor
            changed["T2"]["ED"] = bright * changed["T2"]["WM"]
        if self.enhancement is not None:
            changed["T1ce"]["ET"] = self.enhancement * changed["T1ce"]["WM"]
        for modality, table in changed.items():
            for tissue in _TUMOR:
                away = table[tissue] - table["WM"]
                table[tissue] = table["WM"] + self.contrast[modality] * away
        for tissue in ("vessel", "dura"):
            changed["T1ce"][tissue] *= self.tails[0]
        changed["T2"]["CSF"] *= self.tails[1]
        return changed


def draw_faint(seed: int) -> Faint:
    """Draw the deviations of a faint phantom, from a random stream of their own.

    Examples
    --------
    >>> 0.7 <= min(draw_faint(3).contrast.values()) <= 1.2
    True
    """
    generator = stream(seed, "faint")
    contrast = generator.uniform(0.7, 1.2, len(MODALITIES))
    margin, reach, tail, fluid = generator.random(4)
    chance = generator.random(3)
    dark, bright, enhancement, silent = generator.random(4)
    return Faint(
        contrast={name: float(k) for name, k in zip(MODALITIES, contrast, strict=True)},
        margin_signal=0.3 + 0.5 * float(margin),
        edema_reach=0.5 + 0.5 * float(reach),
        dark_edema=(
            (0.45 + 0.2 * float(dark), 1.8 + float(bright)) if chance[0] < 0.4 else None
        ),
        tails=(1 + 0.8 * float(tail), 1 + 0.5 * float(fluid)),
        enhancement=1.15 + 0.3 * float(enhancement) if chance[1] < 0.4 else None,
        non_enhancing=0.25 + 0.35 * float(silent) if chance[2] < 0.5 else None,
    )  # fmt: skip
