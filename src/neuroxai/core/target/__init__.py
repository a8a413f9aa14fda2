"""Targets: the scalar per sample that is explained, computed from the model output."""
