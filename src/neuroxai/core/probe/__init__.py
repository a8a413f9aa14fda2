"""Asking a network: scores, gradients and layer maps."""
