"""An explanation laid on the patient's own grid, and its files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from neuroxai.core.explanation import Explanation
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.data.case import Case
from neuroxai.data.nifti import write_nifti
from neuroxai.data.placement import Placement
from neuroxai.files.atomic import write_json
from neuroxai.files.folder import describe_dataset
from neuroxai.files.names import sidecar, slug
from neuroxai.patient.regions import Regions

_MOST = 0.5


@dataclass(frozen=True, eq=False)
class PatientMap:
    """One explanation of one case.

    Attributes
    ----------
    explanation
        The signed attribution on the network's grid and how it was made.
    case, placement
        The study, and the way from the network's grid back to it.
    channels
        Modality of every channel of the attribution; ``("all",)`` for class activation maps.
    model
        Name and hashes of the network, for the sidecar.
    part
        Which of a method's several maps of one target this is, for the file's name.
    regions
        Where its evidence may lie; without them nothing is said of that.
    """

    explanation: Explanation
    case: Case
    placement: Placement
    channels: tuple[str, ...]
    model: Mapping[str, Any]
    part: str = ""
    regions: Regions | None = None

    @cached_property
    def evidence(self) -> dict[str, Any] | None:
        """How much of the map lies in each region; see :meth:`Regions.evidence`."""
        if self.regions is None:
            return None
        return self.regions.evidence(self.explanation.values[0], self._asked)

    @property
    def _asked(self) -> Tensor | None:
        """Where on the network's grid the target was asked, if its output lies on that."""
        within = self.explanation.within
        if within is None or tuple(within.shape[1:]) != self.placement.grid:
            return None
        return within[0]

    def asked(self) -> NDArray[np.bool_] | None:
        """Return where on the patient's grid the target was asked; None for everywhere."""
        if self._asked is None:
            return None
        marked: NDArray[np.uint8] = self.placement.to_patient(self._asked.numpy().astype(np.uint8))
        return marked > 0

    @property
    def outside(self) -> float | None:
        """Which share of the map lies where there is no brain; None where that is not known."""
        shares = (self.evidence or {}).get("all")
        return None if shares is None else float(shares["outside"])

    @property
    def mostly_outside(self) -> bool:
        """Whether more than half of the map lies where there is no brain."""
        return self.outside is not None and self.outside > _MOST

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know: the explanation's notes, and where most of it lies."""
        if self.evidence is None or not self.mostly_outside:
            return self.explanation.notes
        said = (
            f"{self.outside:.0%} of this map lies outside the brain "
            f"({self.evidence['volume']['outside']:.0%} of the volume does)"
        )
        return (*self.explanation.notes, said)

    @property
    def stem(self) -> str:
        """File name without ending: ``CASE_label-TARGET_desc-METHOD[-PART]_statmap``."""
        target = slug(str(self.explanation.target["name"]))
        within = self.explanation.target.get("within")
        where = f"_within-{slug(within)}" if within else ""
        name, part = slug(self.case.name), f"-{slug(self.part)}" if self.part else ""
        return f"{name}_label-{target}{where}_desc-{self.explanation.method}{part}_statmap"

    def volume(self) -> NDArray[np.float32]:
        """Return the attribution on the patient's grid: ``(C, I, J, K)``, zero outside the crop."""
        values = self.explanation.values[0].float().numpy()
        return self.placement.to_patient(values)

    def save(self, out: str | Path) -> Path:
        """Write the map as NIfTI on the patient's own grid and affine, and its JSON sidecar.

        A class activation map is one volume; a map by modality is 4-D, its modalities named in the
        header and the sidecar.

        Returns
        -------
        Path
            The NIfTI file.
        """
        folder = Path(out)
        describe_dataset(folder)
        volume = self.volume()
        several = volume.shape[0] > 1
        path = folder / f"{self.stem}.nii.gz"
        write_nifti(
            path,
            np.moveaxis(volume, 0, -1) if several else volume[0],
            self.case.affine,
            description=f"{self.explanation.title}; {NOT_FOR_CLINICAL_USE}",
            modalities=self.channels if several else None,
        )
        write_json(sidecar(path), self.describe(path))
        return path

    def describe(self, path: Path) -> dict[str, Any]:
        """Return the sidecar of the map that was written to ``path``."""
        return {
            "case": self.case.name,
            "file": path.name,
            "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "channels": list(self.channels),
            **self.explanation.describe(),
            "notes": list(self.notes),
            "evidence": self.evidence,
            "model": dict(self.model),
            "inputs": {
                name: {"file": Path(source.path).name, "sha256": source.sha256}
                for name, source in self.case.sources.items()
            },
            "placement": self.placement.describe(),
        }
