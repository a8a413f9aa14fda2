"""Paths, baselines and completeness, shared by the path methods."""
