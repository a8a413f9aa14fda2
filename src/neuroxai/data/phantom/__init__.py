"""Synthetic brain tumor cohort on MNI152 anatomy, reproducible from seeds, with ground truth."""

from neuroxai.data.phantom.cohort import write_cohort
from neuroxai.data.phantom.make import TISSUES, Phantom, make_phantom
from neuroxai.data.phantom.planted import VARIANTS, Cause

__all__ = ["TISSUES", "VARIANTS", "Cause", "Phantom", "make_phantom", "write_cohort"]
