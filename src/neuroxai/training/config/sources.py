"""Data sources of a training: synthetic phantoms, a folder of cases, or a folder of pictures."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from neuroxai.core.errors import CaseError
from neuroxai.files.schema import List, Schema
from neuroxai.training.config.number_types import Fraction, Index, Positive, ProperFraction

Seeds = List[tuple[Index, Index]]
"""First seed, and one more than the last."""


class PhantomSource(Schema):
    """Synthetic cases; a pair of seeds is ``[first, one more than the last]``."""

    train: Seeds = Field(examples=[[0, 100]])
    """Seeds of the training cases."""
    test: Seeds = Field(examples=[[100, 120]])
    """Seeds of the held-out cases."""
    validation: Seeds | None = None
    """Seeds of the validation cases."""
    spacings: List[tuple[Positive, ...]] = Field(default=(1.0,), min_length=1)
    """Voxel edges in mm. Training seeds use them in turn, so repeating one makes it more frequent.
    Each held-out seed is generated once at every distinct spacing."""
    variant: str | None = None
    """Name of a planted cause; see ``data.phantom.planted``."""
    wide: Fraction = 0.0
    """Fraction of the training seeds that are generated with wide variety, far from the typical
    case; held-out seeds are then generated both ways."""

    faint: Fraction = 0.0
    """Fraction of the training seeds whose tumors are as inconspicuous as many real ones; held-out
    seeds are not."""

    @model_validator(mode="after")
    def _disjoint_seeds(self) -> Self:
        if self.train[0] >= self.train[1]:
            raise ValueError(
                f"train is {list(self.train)}, expected [first, one more than the last] and at "
                "least one seed"
            )
        for key in ("validation", "test"):
            seeds = getattr(self, key)
            if seeds is not None and seeds[0] > seeds[1]:
                raise ValueError(
                    f"{key} is {list(seeds)}, expected [first, one more than the last]"
                )
        for first, second in (("train", "test"), ("validation", "test"), ("train", "validation")):
            one, other = getattr(self, first) or (0, 0), getattr(self, second) or (0, 0)
            if max(one[0], other[0]) < min(one[1], other[1]):
                raise ValueError(
                    f"{first} and {second} share seeds ({list(one)} and {list(other)}); use "
                    "disjoint ranges"
                )
        return self

    @model_validator(mode="after")
    def _phantom_exists(self) -> Self:
        from neuroxai.data.phantom.make import check_request

        try:
            for spacing in self.spacings:
                check_request(
                    self.train[0], spacing, None, self.variant, None, self.wide > 0,
                    faint=self.faint > 0,
                )  # fmt: skip
        except CaseError as error:
            raise ValueError(str(error)) from error
        return self


class CohortSource(Schema):
    """A folder of cases in any supported layout, split by patient."""

    folder: str
    """Path of the folder."""
    test_fraction: ProperFraction = 0.2
    """Fraction of the patients to hold out."""
    validation_fraction: ProperFraction = 0.0
    """Fraction of the other patients to use for validation."""
    test: List[tuple[str, ...]] = ()
    """Patients to hold out by name; if empty, ``test_fraction`` of them are drawn with the seed."""
    folds: Index = 0
    """Number of cross-validation folds, instead of ``test_fraction``; 0 for none."""
    fold: Index = 0
    """Index of the fold to hold out, from 0."""
    split: str | None = None
    """``split.csv`` of another run to reuse."""
    layout: str | None = None
    """Layout of the label values, for example ``decathlon``; detected from the file names."""
    resample_to: str | None = None
    """Modality whose grid files on other grids are resampled to; null refuses them."""

    @model_validator(mode="after")
    def _one_split(self) -> Self:
        if self.folds == 1 or self.fold >= max(self.folds, 1):
            raise ValueError(
                f"fold is {self.fold} of {self.folds} folds; expected 2 or more folds, and a fold "
                "counted from 0"
            )
        if sum((bool(self.test), bool(self.folds), self.split is not None)) > 1:
            raise ValueError("more than one of test, folds and split is set; keep one")
        return self


class DataSource(Schema):
    """Exactly one data source."""

    phantom: PhantomSource | None = None
    """Synthetic cases."""
    cohort: CohortSource | None = None
    """A folder of cases."""
    pictures: CohortSource | None = None
    """A folder of class folders with PNG or JPEG pictures; each picture counts as a patient."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(source is not None for source in (self.phantom, self.cohort, self.pictures)) != 1:
            raise ValueError("expected exactly one of 'phantom', 'cohort' and 'pictures'")
        return self

    @property
    def folder(self) -> CohortSource | None:
        """The folder of cases or pictures, None for phantoms."""
        return self.cohort or self.pictures

    @property
    def has_validation(self) -> bool:
        """Whether some cases are set aside for validation."""
        if self.phantom is not None:
            return self.phantom.validation is not None
        folder = self.folder
        return folder is not None and (folder.validation_fraction > 0 or folder.split is not None)
