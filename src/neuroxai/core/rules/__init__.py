"""Backward rules: how a gradient passes back through a network."""
