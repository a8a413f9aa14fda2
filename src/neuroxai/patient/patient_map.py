"""An explanation on the patient's own grid, and its files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from neuroxai.core.explanation import Explanation
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.data.case import Case
from neuroxai.data.nifti import write_nifti
from neuroxai.data.placement import Placement
from neuroxai.data.quantization import Quantized, quantize
from neuroxai.files.atomic import write_json
from neuroxai.files.folder import describe_dataset
from neuroxai.files.names import bids_stem, sidecar
from neuroxai.inspection.chance import NOT_ABOVE_CHANCE, Chance, ChanceLevel
from neuroxai.inspection.relevance_mass import RelevanceMass
from neuroxai.patient.location import Location, locate
from neuroxai.patient.regions import Regions

_MOST = 0.5
"""Share of a map outside the brain above which a note warns: the larger half."""

_AMOUNT = "amount per voxel of the file; resampling preserves the sum but for the padding"
_VALUE = "value at the voxel; resampling preserves values, so sums depend on the voxel size"


@dataclass(frozen=True, eq=False)
class PatientMap:
    """One explanation of one case.

    ``values`` and ``np.asarray`` give the map on the network's grid, as for an
    :class:`~neuroxai.core.explanation.Explanation`; :meth:`volume` gives it on the patient's grid.

    Attributes
    ----------
    explanation
        The signed attribution on the network's grid, and its provenance.
    case, placement
        The study, and the mapping from the network's grid to the patient's.
    channels
        Modality of each channel of the attribution; ``("all",)`` for class activation maps.
    model
        Name and hashes of the network, for the sidecar.
    part
        Distinguishes several maps of one method and one target in the file name.
    regions
        The brain and the tumor's regions, for :attr:`evidence`. Optional.
    chance_level
        What uninformative maps have in the place that the target was restricted to. Optional.
    """

    explanation: Explanation
    case: Case
    placement: Placement
    channels: tuple[str, ...]
    model: Mapping[str, str]
    part: str = ""
    regions: Regions | None = None
    chance_level: ChanceLevel | None = None

    @property
    def values(self) -> Tensor:
        """The signed attribution on the network's grid, ``(1, C, *S)``."""
        return self.explanation.values

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> NDArray[np.generic]:
        return self.explanation.__array__(dtype, copy)

    def __repr__(self) -> str:
        explanation = self.explanation
        layer = f", layer {explanation.layer}" if explanation.layer else ""
        return (
            f"<{explanation.title} of {explanation.target['name']} in {self.case.name}: "
            f"{tuple(self.values.shape)}{layer}. {NOT_FOR_CLINICAL_USE}>"
        )

    @cached_property
    def evidence(self) -> RelevanceMass | None:
        """Share of the map in each region; see :meth:`Regions.evidence`."""
        if self.regions is None:
            return None
        return self.regions.evidence(self.values[0], self._within)

    @cached_property
    def chance(self) -> Chance | None:
        """The map's share where the target is averaged, compared with uninformative maps.

        None if the target was not restricted, or the map is zero, NaN or infinite.
        """
        return None if self.chance_level is None else self.chance_level.compare(self.values[0])

    @cached_property
    def location(self) -> Location | None:
        """Where in the brain the map is; None if unknown."""
        if self.regions is None or not self.case.laterality_known:
            return None
        return locate(self.values[0], self.regions.masks["brain"], self.placement)

    @property
    def _within(self) -> Tensor | None:
        """The mask the target was restricted to, ``(*S)``, if the output has the input's grid."""
        within = self.explanation.within
        if within is None or tuple(within.shape[1:]) != self.placement.grid:
            return None
        return within[0]

    def within_mask(self) -> NDArray[np.bool_] | None:
        """Return the mask the target was restricted to, ``(I, J, K)``; None if unrestricted."""
        if self._within is None:
            return None
        marked: NDArray[np.uint8] = self.placement.to_patient(self._within.numpy().astype(np.uint8))
        return marked > 0

    @property
    def outside(self) -> float | None:
        """Share of the map outside the brain; None if unknown."""
        if self.evidence is None or self.evidence.all is None:
            return None
        return self.evidence.all["outside"]

    @property
    def mostly_outside(self) -> bool:
        """Whether more than half of the map is outside the brain."""
        return self.outside is not None and self.outside > _MOST

    @property
    def notes(self) -> tuple[str, ...]:
        """The explanation's notes, and warnings if the map is not where it should be."""
        notes = list(self.explanation.notes)
        if self.chance is not None and not self.chance.above:
            notes.insert(0, f"{NOT_ABOVE_CHANCE}: {self.chance.reason()}")
        if self.evidence is not None and self.mostly_outside:
            notes.append(
                f"{self.outside:.0%} of this map is outside the brain, which is "
                f"{self.evidence.volume['outside']:.0%} of the volume"
            )
        return tuple(notes)

    @property
    def stem(self) -> str:
        """File name without extension: ``sub-CASE_label-TARGET_desc-METHOD[PART]_statmap``.

        A target within another place than the default is ``label-TARGETWithinPLACE``.
        """
        return self._stem()

    def _stem(self, modality: str = "") -> str:
        return bids_stem(
            self.case.name,
            "statmap",
            label=label_of(self.explanation.target),
            desc=f"{self.explanation.method} {self.part} {modality}",
        )

    def volume(self) -> NDArray[np.float32]:
        """Return the attribution on the patient's grid, ``(C, I, J, K)``, zero outside the crop.

        If the voxel size differs, amounts per voxel are distributed, so that their sum is
        preserved, and other values are interpolated.
        """
        return self._on_scan(self.values[0].float().numpy())

    def _on_scan(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.placement.to_patient(values, amounts=self.explanation.quantity == "amount")

    def save(self, out: str | Path) -> Path:
        """Write the map as NIfTI on the patient's own grid and affine, and its JSON sidecar.

        A class activation map is one volume. Other maps are 4-D with one volume for each modality;
        the header and the sidecar name the modalities. Values are stored as int16 with the step
        given in the sidecar; see :func:`~neuroxai.data.quantization.quantize`.

        Returns
        -------
        Path
            The NIfTI file.
        """
        return self._write(Path(out), self.values[0].float().numpy(), self.channels)

    def save_modalities(self, out: str | Path) -> list[Path]:
        """Write a 3-D NIfTI file and a sidecar for each modality, for viewers without 4-D files.

        The modality is added to the name, as in ``desc-integratedGradientsT1ce``. Channels of the
        same modality are added. A class activation map is written as by :meth:`save`.

        Returns
        -------
        list of Path
            The NIfTI files.
        """
        values = self.values[0].float().numpy()
        if len(values) == 1:
            return [self.save(out)]
        own = {
            name: [v for v, each in zip(values, self.channels, strict=True) if each == name]
            for name in dict.fromkeys(self.channels)
        }
        return [
            self._write(Path(out), np.sum(parts, axis=0, keepdims=True), (name,), name)
            for name, parts in own.items()
        ]

    def _write(
        self,
        folder: Path,
        values: NDArray[np.float32],
        channels: tuple[str, ...],
        part: str = "",
    ) -> Path:
        """Write channels ``(C, *S)`` on the network's grid as one file, with its sidecar."""
        describe_dataset(folder)
        volume = self._on_scan(values)
        stored = quantize(volume, amounts=self.explanation.quantity == "amount")
        several = volume.shape[0] > 1
        path = folder / f"{self._stem(part)}.nii.gz"
        write_nifti(
            path,
            np.moveaxis(stored.data, 0, -1) if several else stored.data[0],
            self.case.affine,
            description=f"{self.explanation.title}; {NOT_FOR_CLINICAL_USE}",
            modalities=channels if several else None,
            step=stored.step,
        )
        sums = self._describe_quantity(values, volume, stored)
        write_json(sidecar(path), self._describe(path, channels, sums, stored))
        return path

    def _describe(
        self, path: Path, channels: tuple[str, ...], sums: Mapping[str, Any], stored: Quantized
    ) -> dict[str, Any]:
        """Return the sidecar of the map that was written to ``path``."""
        return {
            "case": self.case.name,
            "file": path.name,
            "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "channels": list(channels),
            **self.explanation.describe(),
            "quantity": dict(sums),
            "precision": stored.describe(),
            "quality": self.case.describe_quality(),
            "notes": list(self.notes),
            "evidence": self.describe_evidence(),
            "chance": None if self.chance is None else self.chance.describe(),
            "model": dict(self.model),
            "inputs": {name: source.describe() for name, source in self.case.sources.items()},
            "placement": self.placement.describe(),
        }

    def _describe_quantity(
        self, values: NDArray[np.float32], volume: NDArray[np.float32], stored: Quantized
    ) -> dict[str, Any]:
        """Return what the file's values are, and their sums per channel on both grids."""
        network, scan = (
            each.reshape(len(each), -1).sum(axis=1, dtype=np.float64) for each in (values, volume)
        )
        kind = self.explanation.quantity
        described: dict[str, Any] = {
            "kind": kind,
            "meaning": _AMOUNT if kind == "amount" else _VALUE,
            "sum_on_network_grid": network.tolist(),
            "sum_in_file": stored.sums().tolist(),
        }
        if kind == "amount":
            lost = network - scan if self.placement.padded else np.zeros_like(scan)
            described["sum_in_padding"] = lost.tolist()
        return described

    def describe_evidence(self) -> dict[str, Any] | None:
        """Return :attr:`evidence` and the source of the tumor's regions, ready for JSON."""
        if self.regions is None or self.evidence is None:
            return None
        return {"regions_from": self.regions.source, **self.evidence.describe()}


def label_of(target: Mapping[str, Any]) -> str:
    """Return a bound target's label in file names: its name, and its place if it was requested.

    Examples
    --------
    >>> label_of({"name": "ET", "within": "image", "within_by_default": False})
    'ET within image'
    >>> label_of({"name": "ET", "within": "prediction", "within_by_default": True})
    'ET'
    """
    name, within = str(target["name"]), target.get("within")
    is_default = target.get("within_by_default") or within == "prediction"
    place = str(within).partition(".nii")[0]
    return name if within is None or is_default else f"{name} within {place}"
