"""Evaluation and model card of a trained network."""
